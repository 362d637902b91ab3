package memory

import "runtime/debug"

// Settle gives back what starting and loading left behind: garbage, and the pages of
// the program that only they ran. What is still needed of those comes back from the
// system's cache of files, some pages at a time.
func Settle() {
	debug.FreeOSMemory()
	dropProgram()
}
