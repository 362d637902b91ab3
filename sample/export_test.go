package sample

// Kept are the tokens that the last draw chose from, where some were left out.
func (s *Sampler) Kept() (ids []int32) {
	for _, c := range s.kept {
		ids = append(ids, c.id)
	}
	return ids
}
