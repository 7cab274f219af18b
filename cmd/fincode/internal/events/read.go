package events

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Read returns the entries of the journal in dir, in the order in which they were written.
// It leaves out lines that are not whole. A folder without a journal has no entries.
func Read(dir string) ([]Entry, error) {
	var all []Entry
	for range 3 { // a rotation meanwhile moves entries from one file to the other
		before := rotatedAt(dir)
		all = nil
		for _, name := range []string{olderName, currentName} {
			entries, err := readFile(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, e := range entries {
				e.Journal = dir
				all = append(all, e)
			}
		}
		if rotatedAt(dir) == before {
			break
		}
	}
	return all, nil
}

// rotatedAt returns something that changes when the journal is rotated.
func rotatedAt(dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, olderName))
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

func readFile(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// parse reads lines. It skips those that are too long, torn, or not an entry.
func parse(r io.Reader) ([]Entry, error) {
	var all []Entry
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e Entry
		if json.Unmarshal(line, &e) == nil && e.Kind != "" {
			all = append(all, e)
		}
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}
