package convert

// SetGGUFChunk makes chunks of GGUF files as small as a test wants.
func SetGGUFChunk(bytes int) (restore func()) {
	before := ggufChunk
	ggufChunk = bytes
	return func() { ggufChunk = before }
}

// SetDiskSpace makes every disk have so many bytes free.
func SetDiskSpace(bytes int64) (restore func()) {
	before := diskSpace
	diskSpace = func(string) (int64, bool) { return bytes, true }
	return func() { diskSpace = before }
}
