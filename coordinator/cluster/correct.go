package cluster

import "github.com/potluck-llm/potluck/coordinator/plan"

// A measurement may be wrong, of a machine that does something else just then:
// it moves a member's part only within these bounds.
const leastSlowdown, mostSlowdown = 0.1, 30

// correct compares what a member's part of a chain was measured to compute
// with what the plan took from the member's own figures. The next plan goes by
// what was measured.
func (s *State) correct(c *chain, worker string, ms float64) {
	m := s.members[worker]
	if c == nil || m == nil || !(ms > 0) {
		return
	}
	for _, st := range c.plan.Stages {
		if st.Worker == worker && st.ClaimMs > 0 {
			m.slowdown = min(max(ms/st.ClaimMs, leastSlowdown), mostSlowdown)
		}
	}
}

// stageMs is what a token takes at a stage by what is known now, in
// milliseconds.
func (s *State) stageMs(st plan.Stage) float64 {
	if m := s.members[st.Worker]; m != nil {
		return m.worker().Takes(st.ClaimMs)
	}
	return st.Ms
}

// takes is what a token takes through a plan's chain by what is known now,
// without the coordinator's own part.
func (s *State) takes(p *plan.Plan) (ms float64) {
	for _, st := range p.Stages {
		ms += s.stageMs(st)
	}
	return ms
}

// Predicted is what a token takes at each stage of the serving chain, in
// milliseconds, by what is known now; nil where none serves.
func (s *State) Predicted() map[string]float64 {
	if s.active == nil {
		return nil
	}
	list := map[string]float64{}
	for _, st := range s.active.plan.Stages {
		list[st.Worker] = s.stageMs(st)
	}
	return list
}
