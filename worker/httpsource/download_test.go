package httpsource

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/shard"
)

// some is n bytes.
func some(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	return data
}

// pour adds data in odd parts.
func pour(d *download, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), 300_007)
		if err := d.add(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return d.flush()
}

func TestDownload(t *testing.T) {
	for _, size := range []int{0, 1, writeAtOnce - 1, writeAtOnce, 2*writeAtOnce + 5} {
		data, path := some(size), filepath.Join(t.TempDir(), "piece")
		file, err := os.Create(path)
		require.NoError(t, err)
		for _, d := range []*download{newDownload(file), newDownload(nil)} {
			d.expect(int64(size))
			require.NoError(t, pour(d, some(1000)))
			d.restart() // that was not what it should be
			require.NoError(t, pour(d, data))
			require.EqualValues(t, size, d.size)
			require.NoError(t, d.check("", sha256.Sum256(data)))
			require.Error(t, d.check("", shard.Hash{}))
			if d.file == nil {
				require.Equal(t, string(data), string(d.data))
				continue
			}
			require.LessOrEqual(t, cap(d.data), writeAtOnce)
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(data), string(got))
		}
		require.NoError(t, file.Close())
	}
}

// Where a file can't be written the rest comes to memory, behind what is written.
func TestDownloadWithoutDisk(t *testing.T) {
	data, path := some(3*writeAtOnce), filepath.Join(t.TempDir(), "piece")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	d := newDownload(file)
	require.NoError(t, d.add(data[:writeAtOnce+7]))
	require.EqualValues(t, writeAtOnce, d.written)
	readOnly, err := os.Open(path)
	require.NoError(t, err)
	defer readOnly.Close()
	d.file = readOnly // the disk is full
	require.NoError(t, pour(d, data[writeAtOnce+7:]))
	require.Nil(t, d.file)
	require.Equal(t, string(data), string(d.data))
	require.NoError(t, d.check("", sha256.Sum256(data)))

	// Nothing can be read back either: all comes again, to memory.
	d = newDownload(file)
	require.NoError(t, d.add(data[:writeAtOnce+7]))
	require.NoError(t, file.Close())
	require.Error(t, pour(d, data[writeAtOnce+7:]))
	require.Zero(t, d.size)
	require.NoError(t, pour(d, data))
	require.Equal(t, string(data), string(d.data))
	require.NoError(t, d.check("", sha256.Sum256(data)))
}
