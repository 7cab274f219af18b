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

// A result is everything that happened during the demonstration.
type result struct {
	done          count
	fincode       fincodetest.Counts
	presentations []fincodetest.Presentation // of the tokens that were presented more than once

	// killed is the range of refresh tokens that the killed process may have
	// presented when it was killed, by their number in the session.
	killed struct{ firstToken, lastToken int }

	folder    string // a description of its content
	folderErr error
}

// takeover reports whether the kill explains p: the killed process presented the
// token, and then the process that took over presented it again.
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

// lost reports whether the session was lost because of the kill.
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
		list = append(list, "the session was interrupted, but not by the kill")
	}
	if r.folderErr != nil {
		list = append(list, "the folder: "+r.folderErr.Error())
	}
	// The login gave the first token, so there is one refresh less.
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
		row("  and by a takeover after the kill", n)
	}
	row("longest wait", r.done.LongestWait.Round(time.Millisecond))
	row("the folder holds", r.folder)
	table.Flush()
	fmt.Fprintln(out)

	if r.lost() {
		fmt.Fprintln(out, "The process was killed in the one moment that costs the session: FinCode had answered")
		fmt.Fprintln(out, "its refresh, and the new token was not saved yet. No program can prevent that.")
		fmt.Fprintln(out, "The session is lost and needs a new login. Its error has SessionError.Interrupted set:")
		fmt.Fprintln(out, "this was an accident and is no sign of a stolen token. Run the program again.")
	}
	for _, promise := range r.broken() {
		fmt.Fprintln(out, "BROKEN:", promise)
	}
	if !r.lost() && len(r.broken()) == 0 {
		fmt.Fprintln(out, "Every promise was kept.")
	}
}

// look describes the content of the folder. It returns an error if the session
// cannot be read with the key, or if a token can be read without the key.
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
			return errors.New("it contains a token that is not encrypted")
		}
		size += len(data)
		return nil
	})
	return fmt.Sprintf("the session in %d bytes, its tokens encrypted", size), err
}
