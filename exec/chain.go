package exec

import "context"

// A Chain runs passes through executors one after another, as the workers of a
// room do, without the wire between them. The first span must begin with the
// embedding, the last end with the head.
type Chain struct {
	executors []Executor
	between   [2]Pass
}

// NewChain returns a chain of executors whose spans follow one another.
func NewChain(executors ...Executor) *Chain { return &Chain{executors: executors} }

// Step runs one pass through all spans.
func (c *Chain) Step(ctx context.Context, in, out *Pass) error {
	current := in
	for i, x := range c.executors {
		next := &c.between[i%2]
		if i == len(c.executors)-1 {
			next = out
		}
		if current != in {
			current.Want, current.Trace, current.Tokens = in.Want, in.Trace, nil
		}
		if err := x.Step(ctx, current, next); err != nil {
			return err
		}
		current = next
	}
	return nil
}

// Trim forgets a slot's positions from length on, in every span.
func (c *Chain) Trim(slot, length int) {
	for _, x := range c.executors {
		x.Trim(slot, length)
	}
}

// Close closes every executor.
func (c *Chain) Close() error {
	var first error
	for _, x := range c.executors {
		if err := x.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
