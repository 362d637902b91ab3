package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/plan"
)

// Whoever lends too little for any part must not keep the others from serving.
func TestTooLittleIsLeftOut(t *testing.T) {
	s := small(8)
	for name, little := range map[string]float64{"nothing": 0, "one megabyte": 0.001} {
		for _, policy := range []plan.Policy{plan.Auto, plan.Spread} {
			list := workers(3, 1, 10)
			list[1].Bytes, list[1].ReadGBs = int64(little*1e9), 500 // measured fast, so considered first
			p := plan.Make(s, list, policy, slots)
			check(t, s, list, p)
			for _, st := range p.Stages {
				require.NotEqual(t, list[1].ID, st.Worker, "%s, %s", name, policy)
			}
		}
	}
}
