//go:build !unix

package bench

import "os"

// peakMemory is 0 where the system does not tell it in the standard library.
func peakMemory(*os.ProcessState) int64 { return 0 }
