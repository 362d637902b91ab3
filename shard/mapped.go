//go:build !js

package shard

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/edsrzf/mmap-go"
)

// MapFile maps a file of size bytes, to be read only, in pages as large as the
// system has for it. The bytes are valid until they are unmapped; they cost memory
// once, however often the file is mapped, and only as long as nothing else needs it.
func MapFile(path string, size int64) (mmap.MMap, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() != size {
		return nil, nil, fmt.Errorf("%s has %d bytes, the manifest says %d", path, info.Size(), size)
	}
	data, err := mmap.Map(f, mmap.RDONLY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	advise(data)
	return data, info, nil
}
