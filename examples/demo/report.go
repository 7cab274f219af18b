package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/filestore"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// A result is what happened.
type result struct {
	done          count
	fincode       fincodetest.Counts
	presentations []fincodetest.Presentation // of tokens that came more than once

	// killed bounds the refresh tokens that the killed process may have been
	// presenting when it died, by their number in the session.
	killed struct{ firstToken, lastToken int }

	folder    string // what it holds
	folderErr error
}

// takeover tells whether p is explained by the kill: the killed process was
// presenting the token, and after it whoever took over.
func (r *result) takeover(p fincodetest.Presentation) bool {
	return p.Times == 2 && r.killed.firstToken <= p.Serial && p.Serial <= r.killed.lastToken
}

func (r *result) takeovers() (n int) {
	for _, p := range r.presentations {
		if r.takeover(p) {
			n++
		}
	}
	return n
}

// lost tells whether the kill cost the session.
func (r *result) lost() bool { return r.done.Interrupted > 0 && r.takeovers() > 0 }

func (r *result) presentedTwice() int { return len(r.presentations) - r.takeovers() }

// broken lists the promises that were not kept.
func (r *result) broken() (list []string) {
	if n := r.done.Failures; n > 0 {
		list = append(list, fmt.Sprintf("%d requests failed, the first with: %s", n, r.done.Failure))
	}
	if n := r.presentedTwice(); n > 0 {
		list = append(list, fmt.Sprintf("%d refresh tokens were presented twice", n))
	}
	if r.done.Interrupted > 0 && !r.lost() {
		list = append(list, "the session ended as interrupted, and not because of the kill")
	}
	if r.folderErr != nil {
		list = append(list, "the folder: "+r.folderErr.Error())
	}
	// The first of the tokens came with the login.
	if n := r.fincode.Refreshes; n < lifetimes-1 && !r.lost() {
		list = append(list, fmt.Sprintf("there were %d refreshes in %d token lifetimes", n, lifetimes))
	}
	return list
}

func (r *result) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(table, "%s\t%v\n", name, value) }
	fmt.Fprintln(out)
	row("requests", r.done.Requests)
	row("failures", r.done.Failures)
	row("refreshes", r.fincode.Refreshes)
	row("refresh tokens presented twice", r.presentedTwice())
	if n := r.takeovers(); n > 0 {
		row("  and by a takeover from the killed", n)
	}
	row("longest wait", r.done.LongestWait.Round(time.Millisecond))
	row("the folder holds", r.folder)
	table.Flush()
	fmt.Fprintln(out)

	if r.lost() {
		fmt.Fprintln(out, "The process was killed within the one moment that nobody can bridge: FinCode had")
		fmt.Fprintln(out, "answered its refresh, and the new token was not saved yet. The session is lost, says")
		fmt.Fprintln(out, "so (SessionError.Interrupted: no breach), and needs a login. Run this again.")
	}
	for _, promise := range r.broken() {
		fmt.Fprintln(out, "BROKEN:", promise)
	}
	if !r.lost() && len(r.broken()) == 0 {
		fmt.Fprintln(out, "Every promise was kept.")
	}
}

// look says what the folder holds, and returns an error if the session cannot
// be read from it, or can without the key.
func look(ctx context.Context, dir string, key []byte) (string, error) {
	folder, err := filestore.New(dir)
	if err != nil {
		return "", err
	}
	store, err := fincodeauth.Encrypt(folder, key)
	if err != nil {
		return "", err
	}
	rec, err := store.Load(ctx, session)
	if err != nil {
		return "", err
	}
	if rec.Ended != "" {
		return "a session that has ended", nil
	}
	size := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(data, []byte(rec.Token.AccessToken)) || bytes.Contains(data, []byte(rec.Token.RefreshToken)) {
			return errors.New("a token is legible in it")
		}
		size += len(data)
		return nil
	})
	return fmt.Sprintf("the session in %d bytes, its tokens encrypted", size), err
}
