package cluster

import (
	"fmt"
	"slices"
)

// A View is what others may see of a member.
type View struct {
	ID, Name, Kind, State string
	LayerFirst            int
	LayerCount            int
	Span                  string
	Loaded, Total         int64
}

// View lists the members, and how many requests run and wait.
func (s *State) View() (members []View, active, queued int) {
	for _, id := range s.order {
		members = append(members, s.view(s.members[id]))
	}
	for _, q := range s.sequences {
		if q.slot >= 0 {
			active++
		} else {
			queued++
		}
	}
	return members, active, queued
}

// view shows the span of the chain that serves, else the one that loads.
func (s *State) view(m *Member) View {
	v := View{ID: m.ID, Name: m.Name, Kind: m.Kind, State: Ready}
	show := func(c *chain) bool {
		if c == nil {
			return false
		}
		found := false
		for _, sp := range c.stages {
			if sp.Worker != m.ID {
				continue
			}
			last := sp.Range.To.Layer
			if sp.Range.To.Inside() {
				last++
			}
			v.LayerFirst, v.LayerCount = sp.Range.From.Layer, last-sp.Range.From.Layer
			v.Span = fmt.Sprintf("%v-%v", sp.Range.From, sp.Range.To)
			v.Loaded, v.Total = sp.Loaded, sp.Total
			if !sp.Ready {
				v.State = Loading
			}
			found = true
		}
		return found
	}
	if !show(s.active) {
		show(s.next)
	}
	return v
}

// Changed lists the members that differ between two views.
func Changed(before, after []View) (ids []string) {
	for _, v := range after {
		if !slices.Contains(before, v) {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// Bytes is the size of the model's layers.
func (s *State) Bytes() int64 { return s.o.Shape.Bytes() }
