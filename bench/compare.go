package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/potluck-llm/potluck/shard"
)

// A Peer is another program that runs the same model, measured side by side.
type Peer struct {
	Name string
	// Command is a shell command; {threads}, {prompt}, {gen}, {depth} and {runs} are replaced.
	Command string
}

// ParsePeer reads NAME=COMMAND.
func ParsePeer(text string) (Peer, error) {
	name, command, ok := strings.Cut(text, "=")
	if !ok || name == "" || command == "" {
		return Peer{}, fmt.Errorf("--compare %q: want NAME=COMMAND, where {threads}, {prompt}, {gen}, {depth} and {runs} are replaced", text)
	}
	return Peer{name, command}, nil
}

// Speed is what one program reached in one round.
type Speed struct {
	Prefill float64 `json:"prefill_tok_s"` // 0: not reported
	Decode  float64 `json:"decode_tok_s"`
	Start   float64 `json:"start_s"` // a whole run of one prompt token, measured once after warming up; 0: not measured
	Peak    int64   `json:"peak_bytes"`
}

// A Comparison holds every program's rounds, ours first, and what they are
// held against.
type Comparison struct {
	Names []string           `json:"names"`
	Runs  map[string][]Speed `json:"runs"`

	Threads       int     `json:"threads"`
	BytesPerToken int64   `json:"bytes_read_per_token"`
	MACsPerToken  float64 `json:"multiply_adds_per_prompt_token"`
	WeightBytes   int64   `json:"weight_bytes"`
	Walls         []Walls `json:"walls"` // of each round
}

// Compare runs ours and each peer in turns (A B C A B C …), each as a process
// of its own, so that what else the machine does falls on all alike. m is what
// they run. walls prints Walls as JSON: a process of its own too, since a child's
// peak of memory is never below its parent's.
func Compare(ctx context.Context, m *shard.Manifest, walls string, ours Peer, peers []Peer, o Options, rounds int) (*Comparison, error) {
	all := append([]Peer{ours}, peers...)
	c := &Comparison{Runs: map[string][]Speed{}, Threads: o.Threads, BytesPerToken: BytesPerToken(m, o.KV, o.positions()), MACsPerToken: MACsPerToken(m, o.Prompt)}
	for _, p := range m.Pieces {
		c.WeightBytes += p.Bytes
	}
	for _, p := range all {
		c.Names = append(c.Names, p.Name)
	}
	for round := range rounds {
		out, _, err := Peer{"walls", walls}.run(ctx, o, o.Prompt, o.Gen, o.Runs)
		if err != nil {
			return nil, fmt.Errorf("measuring the machine: %w", err)
		}
		var w Walls
		if err := json.Unmarshal(out, &w); err != nil {
			return nil, fmt.Errorf("measuring the machine: %w", err)
		}
		c.Walls = append(c.Walls, w)
		for _, p := range all {
			s, err := p.measure(ctx, o)
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

// measure runs p twice: for its speeds, and for how soon it has read one token.
func (p Peer) measure(ctx context.Context, o Options) (Speed, error) {
	out, peak, err := p.run(ctx, o, o.Prompt, o.Gen, o.Runs)
	if err != nil {
		return Speed{}, err
	}
	s, err := parseSpeed(out)
	if err != nil {
		return Speed{}, err
	}
	s.Peak = peak
	if strings.Contains(p.Command, "{prompt}") && strings.Contains(p.Command, "{gen}") && !strings.Contains(p.Command, "{depth}") {
		start := time.Now()
		if _, _, err := p.run(ctx, o, 1, 0, 1); err != nil {
			return Speed{}, err
		}
		s.Start = time.Since(start).Seconds()
	}
	return s, nil
}

func (p Peer) run(ctx context.Context, o Options, prompt, gen, runs int) (out []byte, peak int64, err error) {
	command := strings.NewReplacer("{threads}", strconv.Itoa(o.Threads), "{prompt}", strconv.Itoa(prompt),
		"{gen}", strconv.Itoa(gen), "{runs}", strconv.Itoa(runs), "{depth}", strconv.Itoa(o.depth())).Replace(p.Command)
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err = cmd.Output(); err != nil {
		return nil, 0, fmt.Errorf("%w\n%s", err, tail(stderr.Bytes(), 2000))
	}
	return out, peakMemory(cmd.ProcessState), nil
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

var (
	wordedSpeed = regexp.MustCompile(`(?i)(prefill|evaluation|prompt|decode|prediction|generation)\D{0,40}?([0-9]+(?:\.[0-9]+)?)\s*(?:tok(?:en)?s?)/s`)
	listedSpeed = regexp.MustCompile(`(?m)^(Evaluation|Prediction)\n(?:.*\n){0,3}?\s*tokens/s:\s*([0-9]+(?:\.[0-9]+)?)`) // dllama
)

// parseSpeed understands our own --json, llama-bench's -o json, and text that
// names prefill and decode with a figure in tok/s.
func parseSpeed(out []byte) (Speed, error) {
	var own Result
	if json.Unmarshal(out, &own) == nil && own.PrefillTokS > 0 {
		return Speed{Prefill: own.PrefillTokS, Decode: own.DecodeTokS}, nil
	}
	var tests []struct {
		Prompt  int       `json:"n_prompt"`
		Gen     int       `json:"n_gen"`
		Average float64   `json:"avg_ts"`
		Samples []float64 `json:"samples_ts"`
		Test    string    `json:"test"` // ik_llama.cpp: "tg32@pp1024" times what follows a prompt alone
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
			} else if t.Prompt == 0 || strings.HasPrefix(t.Test, "tg") {
				s.Decode = speed
			}
		}
		return s, nil
	}
	var s Speed
	for _, m := range append(wordedSpeed.FindAllSubmatch(out, -1), listedSpeed.FindAllSubmatch(out, -1)...) {
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

// Print writes a table of medians, ours as a multiple of each, and how near
// each came to what the machine can do.
func (c *Comparison) Print(w io.Writer) error {
	reads, macs := c.wall(func(w Walls) float64 { return w.ReadGBs }), c.wall(func(w Walls) float64 { return w.GMACs })
	fmt.Fprintf(w, "%s; a token reads %.1f MB (of %.1f MB of weights, and keys and values) and takes %.2f G multiply-adds.\n", count(c.Threads, "thread"),
		float64(c.BytesPerToken)/1e6, float64(c.WeightBytes)/1e6, c.MACsPerToken/1e9)
	fmt.Fprintf(w, "In the same rounds this machine read %.1f [%.1f–%.1f] GB/s and did %.0f [%.0f–%.0f] G 8-bit multiply-adds/s.\n\n",
		reads.median, reads.low, reads.high, macs.median, macs.low, macs.high)
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "program\tprefill tok/s\trange\tours ×\tof m-a\tdecode tok/s\trange\tours ×\tof read\tstart s\tours ×\tpeak MB\tours ×\t")
	ours := c.row(c.Names[0])
	for _, name := range c.Names {
		r := c.row(name)
		fmt.Fprintf(table, "%s\t%.1f\t%.0f–%.0f\t%s\t%s\t%.1f\t%.1f–%.1f\t%s\t%s\t%.2f\t%s\t%.0f\t%s\t\n", name,
			r.prefill.median, r.prefill.low, r.prefill.high, times(ours.prefill.median, r.prefill.median), share(r.prefill.median*c.MACsPerToken/1e9, macs.median),
			r.decode.median, r.decode.low, r.decode.high, times(ours.decode.median, r.decode.median), share(r.decode.median*float64(c.BytesPerToken)/1e9, reads.median),
			r.start.median, times(ours.start.median, r.start.median), r.peak.median, times(ours.peak.median, r.peak.median))
	}
	return table.Flush()
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "all " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func times(ours, theirs float64) string {
	if theirs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ours/theirs)
}

func share(part, whole float64) string {
	if part == 0 || whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*part/whole)
}

// figure is one of a program's numbers over the rounds.
type figure struct{ median, low, high float64 }

type row struct{ prefill, decode, start, peak figure }

func (c *Comparison) row(name string) row {
	of := func(f func(Speed) float64) figure { return figureOf(c.Runs[name], f) }
	return row{
		of(func(s Speed) float64 { return s.Prefill }), of(func(s Speed) float64 { return s.Decode }),
		of(func(s Speed) float64 { return s.Start }), of(func(s Speed) float64 { return float64(s.Peak) / 1e6 }),
	}
}

func (c *Comparison) wall(f func(Walls) float64) figure { return figureOf(c.Walls, f) }

func figureOf[T any](list []T, f func(T) float64) figure {
	var numbers []float64
	for _, v := range list {
		numbers = append(numbers, f(v))
	}
	if len(numbers) == 0 {
		return figure{}
	}
	return figure{median(numbers), slices.Min(numbers), slices.Max(numbers)}
}
