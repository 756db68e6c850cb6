package main

import (
	"os"
	"path/filepath"
	"strings"
)

// A journal is a file that origins write down each request in before they
// answer it: what they saw outlives them.
type journal struct{ dir, path string }

func newJournal() (*journal, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	return &journal{dir, filepath.Join(dir, "journal")}, nil
}

func (j *journal) remove() { _ = os.RemoveAll(j.dir) }

// read returns how often each request was seen, by method and key, such as
// "GET 42".
func (j *journal) read() (map[string]int, error) {
	b, err := os.ReadFile(j.path)
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(b)) {
		seen[strings.TrimSuffix(line, "\n")]++
	}
	return seen, nil
}
