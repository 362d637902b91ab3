//go:build !unix

package bench

import "os"

// peakMemory and ownPeak are 0 where the system does not tell them in the standard library.
func peakMemory(*os.ProcessState) int64 { return 0 }

func ownPeak() int64 { return 0 }
