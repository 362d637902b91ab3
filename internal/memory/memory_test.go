package memory

import (
	"bytes"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestBuffer(t *testing.T) {
	var b Buffer[float32]
	for _, n := range []int{1, 100, 1000, 100_000, 1_000_000, 3} { // small, then in pages of its own
		room := b.Room(n)
		require.Len(t, room, n)
		require.Zero(t, uintptr(unsafe.Pointer(&room[0]))%64)
		room[0], room[n-1] = 1, 2
	}
	require.Same(t, &b.Room(1_000_000)[0], &b.Room(5)[0], "it does not shrink")
	b.Free()
	require.Zero(t, b)
	require.Len(t, b.Room(10), 10, "free, it can be used again")
	b.Free()
}

func TestAligned(t *testing.T) {
	var s []uint16
	for _, n := range []int{3, 33, 1000, 20} {
		s = Aligned(s, n)
		require.Len(t, s, n)
		require.Zero(t, uintptr(unsafe.Pointer(&s[0]))%64)
	}
	require.Same(t, &s[0], &Aligned(s, 1000)[0])
}

// What is reserved takes room when it is touched, and none when it is released.
func TestReserve(t *testing.T) {
	const size = 1 << 30
	before, _ := resident(t)
	data := Reserve(size)
	require.Equal(t, reserves, data != nil)
	if !reserves {
		return
	}
	require.Len(t, data, size)
	require.Zero(t, data[size-1])
	now, _ := resident(t)
	require.Less(t, now-before, int64(16<<20))
	for i := 0; i < 64<<20; i += 4096 {
		data[i] = 1
	}
	if runtime.GOOS == "linux" {
		now, _ = resident(t)
		require.Greater(t, now-before, int64(48<<20))
	}
	Release(data)
	now, _ = resident(t)
	require.Less(t, now-before, int64(16<<20))
}

// The program goes on as before, in less memory.
func TestSettle(t *testing.T) {
	garbage := bytes.Repeat([]byte{1}, 64<<20)
	require.Len(t, garbage, 64<<20)
	garbage = nil
	all, files := resident(t)
	Settle()
	allAfter, filesAfter := resident(t)
	if runtime.GOOS == "linux" {
		require.Less(t, allAfter, all-48<<20)
		require.Less(t, filesAfter, files, "pages of the program")
	}
	require.Regexp(t, regexp.MustCompile("^a+b$"), "aaab")
	Settle()
}

// resident is this process's memory in bytes, and what of it lies in files; 0 where the
// system is not Linux.
func resident(t *testing.T) (all, files int64) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0
	}
	words := bytes.Fields(data)
	for i, to := range []*int64{&all, &files} {
		pages, err := strconv.ParseInt(string(words[i+1]), 10, 64)
		require.NoError(t, err)
		*to = pages * int64(os.Getpagesize())
	}
	return all, files
}
