package plan

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// typicalRooms are what people have: asked about where no room is given.
var typicalRooms = []struct {
	name    string
	workers []Worker
}{
	{"thirty tabs of 2 GB", room(30, 2, 30)},
	{"thirty-one tabs of 2 GB", room(31, 2, 30)},
	{"thirty laptops that lend 4 GB", room(30, 4, 40)},
	{"one machine with 64 GB", room(1, 64, 80)},
	{"four machines with 24 GB", room(4, 24, 60)},
	{"four machines with 16 GB", room(4, 16, 60)},
	{"one machine with 8 GB", room(1, 8, 40)},
}

func room(count int, gb, readGBs float64) []Worker {
	list := make([]Worker, count)
	for i := range list {
		id := fmt.Sprintf("w%d", i+1)
		list[i] = Worker{ID: id, Name: fmt.Sprintf("one with %g GB", gb), Bytes: int64(gb * 1e9), ReadGBs: readGBs, DispatchMs: 0.2, HopMs: 3}
	}
	return list
}

// Describe writes what a model needs and what a room can do with it; with no
// workers, what some typical rooms can do.
func Describe(w io.Writer, s *Shape, workers []Worker, policy Policy, slots Slots) {
	c := s.Config
	fmt.Fprintf(w, "%s, %d layers\n", c.Arch, c.Layers)
	fmt.Fprintf(w, "  weights          %s (%s in the layers, %s embedding, norm and head)\n", GB(s.Bytes()+s.Ends), GB(s.Bytes()), GB(s.Ends))
	if s.MTP > 0 {
		fmt.Fprintf(w, "  prediction layer %s more\n", GB(s.MTP))
	}
	fmt.Fprintf(w, "  read per token   %s\n", GB(s.ReadPerToken()+s.headBytes()))
	perToken := s.kvBytes(Slots{Slots: 1, Positions: 1, KV: slots.KV}) * int64(c.Layers)
	fmt.Fprintf(w, "  KV per token     %d bytes; %s for %s of %d tokens\n\n", perToken, GB(perToken*int64(slots.Slots)*int64(slots.Positions)), conversations(slots.Slots), slots.Positions)
	if len(workers) > 0 {
		describePlan(w, Make(s, workers, policy, slots), workers)
		return
	}
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(table, "room\tcan run it?")
	for _, r := range typicalRooms {
		p := Make(s, r.workers, policy, slots)
		verdict := "no: " + strings.Join(p.Reasons, "; ")
		if p.OK() {
			verdict = fmt.Sprintf("yes, about %.1f tok/s with %d of %d", p.TokS, len(p.Stages), len(r.workers))
		}
		fmt.Fprintf(table, "%s\t%s\n", r.name, verdict)
	}
	_ = table.Flush()
	fmt.Fprintln(w, "\nFigures assume 30 to 80 GB/s and 3 ms a hop; --room describes yours.")
}

func conversations(n int) string {
	if n == 1 {
		return "one conversation"
	}
	return fmt.Sprintf("%d conversations", n)
}

// headBytes is what the coordinator's head reads for a token: the embedding and
// head are of one size, and only a row of the embedding is read.
func (s *Shape) headBytes() int64 {
	if s.Config.Tied {
		return s.Ends
	}
	return s.Ends / 2
}

func describePlan(w io.Writer, p *Plan, workers []Worker) {
	if !p.OK() {
		fmt.Fprintf(w, "This room cannot run it: %s\n", strings.Join(p.Reasons, "; "))
		return
	}
	fmt.Fprintf(w, "This room can run it at about %.1f tok/s:\n", p.TokS)
	names := map[string]string{}
	for _, worker := range workers {
		names[worker.ID] = worker.Name
	}
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  worker\tfrom\tto\tweights\tms a token")
	for _, st := range p.Stages {
		fmt.Fprintf(table, "  %s\t%v\t%v\t%s\t%.1f\n", names[st.Worker], st.Span.From, st.Span.To, GB(st.Bytes), st.Ms)
	}
	_ = table.Flush()
	for _, reason := range p.Reasons {
		fmt.Fprintf(w, "  - %s\n", reason)
	}
}
