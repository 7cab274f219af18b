package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// databases are URLs of databases of vulnerabilities.
type databases struct {
	chosen string // "" if the user did not choose one
	public string
}

// vulnerabilities runs govulncheck on the work tree of every released module. If
// no database was chosen and the public one cannot be reached, it says so, and
// that is no error: a person without a network can still run everything else. A
// database that was chosen must answer.
func vulnerabilities(ctx context.Context, out io.Writer, repo repository, urls databases) error {
	database := urls.chosen
	if database == "" {
		if err := reach(ctx, urls.public); err != nil {
			fmt.Fprintf(out, "NOT CHECKED for known vulnerabilities, because the database cannot be reached: %v\n", err)
			fmt.Fprintln(out, "To check, run this where the database can be reached, or set GOVULNDB=file:///FOLDER to a copy of it:")
			fmt.Fprintln(out, "\tgo run ./dev/release vulnerabilities")
			return nil
		}
		database = urls.public
	}
	modules, err := modulesAt(ctx, repo, "HEAD")
	if err != nil {
		return err
	}
	tool, err := toolPath(ctx, "govulncheck")
	if err != nil {
		return err
	}
	var problems []error
	for _, m := range modules {
		_, err := command(ctx, filepath.Join(repo.dir, filepath.FromSlash(m.dir)), []string{"GOWORK=off"}, tool, "-db", database, "./...")
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", m.path(), err))
			continue
		}
		fmt.Fprintf(out, "ok    %s calls nothing with a known vulnerability\n", m.path())
	}
	return errors.Join(problems...)
}

// reach returns an error if the database of vulnerabilities does not answer.
func reach(ctx context.Context, database string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, database+"/index/modules.json.gz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL, resp.Status)
	}
	return nil
}
