package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A Peer is another program that runs the same model, measured side by side.
type Peer struct {
	Name string
	// Command is a shell command; {threads}, {prompt} and {gen} are replaced.
	Command string
}

// ParsePeer reads NAME=COMMAND.
func ParsePeer(text string) (Peer, error) {
	name, command, ok := strings.Cut(text, "=")
	if !ok || name == "" || command == "" {
		return Peer{}, fmt.Errorf("--compare %q: want NAME=COMMAND, where {threads}, {prompt} and {gen} are replaced", text)
	}
	return Peer{name, command}, nil
}

// Speed is what one program reached in one run.
type Speed struct {
	Prefill, Decode float64 // tok/s, 0: not reported
}

// A Comparison holds every program's runs, ours first.
type Comparison struct {
	Names []string           `json:"names"`
	Runs  map[string][]Speed `json:"runs"`
}

// Compare runs ours and each peer in turns (A B C A B C …), each as a process
// of its own, so that what else the machine does falls on all alike.
func Compare(ctx context.Context, ours Peer, peers []Peer, o Options, rounds int) (*Comparison, error) {
	all := append([]Peer{ours}, peers...)
	c := &Comparison{Runs: map[string][]Speed{}}
	for _, p := range all {
		c.Names = append(c.Names, p.Name)
	}
	for round := range rounds {
		for _, p := range all {
			s, err := p.run(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Name, err)
			}
			c.Runs[p.Name] = append(c.Runs[p.Name], s)
			if o.Log != nil {
				fmt.Fprintf(o.Log, "round %d of %d: %-16s prefill %8.1f, decode %8.1f tok/s\n", round+1, rounds, p.Name, s.Prefill, s.Decode)
			}
		}
	}
	return c, nil
}

func (p Peer) run(ctx context.Context, o Options) (Speed, error) {
	command := strings.NewReplacer("{threads}", strconv.Itoa(o.Threads), "{prompt}", strconv.Itoa(o.Prompt), "{gen}", strconv.Itoa(o.Gen)).Replace(p.Command)
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return Speed{}, fmt.Errorf("%w\n%s", err, tail(stderr.Bytes(), 2000))
	}
	return parseSpeed(out)
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

var wordedSpeed = regexp.MustCompile(`(?i)(prefill|evaluation|prompt|decode|prediction|generation)\D{0,40}?([0-9]+(?:\.[0-9]+)?)\s*(?:tok(?:en)?s?)/s`)

// parseSpeed understands our own --json, llama-bench's -o json, and text that
// names prefill and decode with a figure in tok/s.
func parseSpeed(out []byte) (Speed, error) {
	var own Result
	if json.Unmarshal(out, &own) == nil && own.DecodeTokS > 0 {
		return Speed{own.PrefillTokS, own.DecodeTokS}, nil
	}
	var tests []struct {
		Prompt  int       `json:"n_prompt"`
		Gen     int       `json:"n_gen"`
		Average float64   `json:"avg_ts"`
		Samples []float64 `json:"samples_ts"`
	}
	if json.Unmarshal(out, &tests) == nil && len(tests) > 0 {
		var s Speed
		for _, t := range tests {
			speed := t.Average
			if len(t.Samples) > 0 {
				speed = median(t.Samples)
			}
			if t.Gen == 0 {
				s.Prefill = speed
			} else if t.Prompt == 0 {
				s.Decode = speed
			}
		}
		return s, nil
	}
	var s Speed
	for _, m := range wordedSpeed.FindAllSubmatch(out, -1) {
		speed, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			continue
		}
		switch strings.ToLower(string(m[1])) {
		case "prefill", "evaluation", "prompt":
			s.Prefill = speed
		default:
			s.Decode = speed
		}
	}
	if s == (Speed{}) {
		return s, fmt.Errorf("no speeds in what it printed: %.300s", out)
	}
	return s, nil
}

// Print writes a table of medians, and ours as a multiple of each.
func (c *Comparison) Print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "program\tprefill tok/s\tlowest\thighest\tours ×\tdecode tok/s\tlowest\thighest\tours ×\t")
	ours := c.column(c.Names[0])
	for _, name := range c.Names {
		m := c.column(name)
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%s\t%.1f\t%.1f\t%.1f\t%s\t\n", name,
			m.prefill, m.prefillLow, m.prefillHigh, times(ours.prefill, m.prefill), m.decode, m.decodeLow, m.decodeHigh, times(ours.decode, m.decode))
	}
	return table.Flush()
}

func times(ours, theirs float64) string {
	if theirs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ours/theirs)
}

type column struct{ prefill, prefillLow, prefillHigh, decode, decodeLow, decodeHigh float64 }

func (c *Comparison) column(name string) column {
	var prefill, decode []float64
	for _, s := range c.Runs[name] {
		prefill, decode = append(prefill, s.Prefill), append(decode, s.Decode)
	}
	return column{median(prefill), lowest(prefill), highest(prefill), median(decode), lowest(decode), highest(decode)}
}

func lowest(list []float64) float64 {
	low := list[0]
	for _, v := range list {
		low = min(low, v)
	}
	return low
}

func highest(list []float64) float64 {
	high := list[0]
	for _, v := range list {
		high = max(high, v)
	}
	return high
}
