package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// assumedMemory is what a machine that does not tell is taken to have free.
const assumedMemory = 8 << 30

// freeMemory is how many bytes could be used without swapping, as far as the
// system tells.
func freeMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return assumedMemory
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemAvailable:" {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return assumedMemory
}
