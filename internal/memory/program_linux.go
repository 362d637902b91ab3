package memory

import (
	"bytes"
	"debug/elf"
	"os"

	"golang.org/x/sys/unix"
)

// dropProgram takes the program's code and constants out of this process's memory.
// Only those that are as the file has them: not what a loader has written to, nor
// anything where a debugger may have put its breakpoints.
func dropProgram() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !bytes.Contains(status, []byte("\nTracerPid:\t0\n")) {
		return
	}
	file, err := elf.Open("/proc/self/exe")
	if err != nil {
		return
	}
	defer file.Close()
	if file.Type != elf.ET_EXEC { // else it lies elsewhere, and constants have been written to
		return
	}
	page := uint64(os.Getpagesize())
	for _, p := range file.Progs {
		from, to := (p.Vaddr+page-1)/page*page, (p.Vaddr+p.Filesz)/page*page
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W == 0 && from < to {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED)
		}
	}
}
