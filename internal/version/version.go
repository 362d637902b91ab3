// Package version names this build.
package version

import "runtime/debug"

// Build is set by the linker; see the Makefile.
var Build = ""

// String is the build's name: what the linker set, else the commit that the Go
// tool recorded, else "development".
func String() string {
	if Build != "" {
		return Build
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 7 {
				return s.Value[:7]
			}
		}
	}
	return "development"
}
