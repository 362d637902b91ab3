package convert

// SetGGUFChunk makes chunks of GGUF files as small as a test wants.
func SetGGUFChunk(bytes int) (restore func()) {
	before := ggufChunk
	ggufChunk = bytes
	return func() { ggufChunk = before }
}
