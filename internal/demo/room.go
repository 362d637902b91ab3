package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// room talks to the coordinator as any client would.
type room struct{ base string }

// cluster is what the demo reads of GET /v1/cluster.
type cluster struct {
	Model struct {
		Name   string `json:"name"`
		Layers int    `json:"layers"`
	} `json:"model"`
	Chains       [][]string `json:"chains"`
	PredictedTok float64    `json:"predicted_tok_s"`
	MeasuredTok  float64    `json:"measured_tok_s"`
	Workers      []struct {
		ID         string `json:"id"`
		Name       string `json:"name"`
		Kind       string `json:"kind"`
		State      string `json:"state"`
		Backend    string `json:"backend"`
		LayerFirst int    `json:"layer_first"`
		LayerCount int    `json:"layer_count"`
		Hop        struct {
			Queue    float64 `json:"queue"`
			Wire     float64 `json:"wire"`
			Compute  float64 `json:"compute"`
			Readback float64 `json:"readback"`
		} `json:"hop_ms"`
	} `json:"workers"`
}

func (r *room) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// poll calls ready until it says so, an error of its own, or the time is up.
func poll(ctx context.Context, limit time.Duration, what string, ready func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s; see build/demo/*.log", limit, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// await waits until the coordinator accepts requests.
func (r *room) await(ctx context.Context, serve *process, limit time.Duration) error {
	return poll(ctx, limit, "the coordinator", func() (bool, error) {
		select {
		case err := <-serve.done:
			return false, fmt.Errorf("the coordinator ended at once (%v); see %s", err, serve.log)
		default:
		}
		return r.get(ctx, "/healthz", nil) == nil, nil
	})
}

// awaitWorkers waits until count workers hold layers.
func (r *room) awaitWorkers(ctx context.Context, count int, limit time.Duration) error {
	return poll(ctx, limit, fmt.Sprintf("%d workers that hold layers", count), func() (bool, error) {
		var c cluster
		if err := r.get(ctx, "/v1/cluster", &c); err != nil {
			return false, nil
		}
		holding := 0
		for _, w := range c.Workers {
			if w.State == "ready" && w.LayerCount > 0 {
				holding++
			}
		}
		return holding >= count, nil
	})
}

// ask streams an answer to standard output.
func (r *room) ask(ctx context.Context, prompt string) error {
	body, err := json.Marshal(map[string]any{
		"messages": []map[string]string{{"role": "user", "content": prompt}}, "temperature": 0, "max_tokens": 128, "stream": true,
		"chat_template_kwargs": map[string]any{"enable_thinking": false},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("%s: %s", response.Status, message)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return fmt.Errorf("the stream holds %.80q: %w", data, err)
		}
		if chunk.Error != nil {
			return fmt.Errorf("the coordinator says: %s", chunk.Error.Message)
		}
		for _, c := range chunk.Choices {
			fmt.Print(strings.ReplaceAll(c.Delta.Content, "\n", "\n           "))
		}
	}
	fmt.Println()
	return lines.Err()
}

// table prints who holds which layers.
func (r *room) table(ctx context.Context) error {
	var c cluster
	if err := r.get(ctx, "/v1/cluster", &c); err != nil {
		return err
	}
	fmt.Printf("\n%s, %d layers: predicted %.1f tok/s, measured %.1f tok/s\n\n", c.Model.Name, c.Model.Layers, c.PredictedTok, c.MeasuredTok)
	table := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  worker\tkind\tbackend\tlayers\tcompute ms\treadback ms\twire ms\tqueue ms")
	for _, w := range c.Workers {
		layers := "in reserve"
		if w.LayerCount > 0 {
			layers = fmt.Sprintf("%d to %d", w.LayerFirst, w.LayerFirst+w.LayerCount-1)
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\n", w.Name, w.Kind, w.Backend, layers, w.Hop.Compute, w.Hop.Readback, w.Hop.Wire, w.Hop.Queue)
	}
	return table.Flush()
}
