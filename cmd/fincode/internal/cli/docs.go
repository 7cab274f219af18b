package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

// docsCommand writes the manual. It is for whoever packages the command, so it is hidden.
func (a *app) docsCommand() *cobra.Command {
	var man, markdown string
	c := &cobra.Command{
		Use:    "docs",
		Short:  "Write the manual: a page for each command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if man == "" && markdown == "" {
				return failure.New(failure.Usage, "name a folder with --man or --markdown")
			}
			return failure.Wrap(failure.Local, errors.Join(
				writePages(cmd.Root(), man, "-", ".1", manPage),
				writePages(cmd.Root(), markdown, "_", ".md", doc.GenMarkdown),
			))
		},
	}
	c.Flags().StringVar(&man, "man", "", "folder for manual pages")
	c.Flags().StringVar(&markdown, "markdown", "", "folder for Markdown")
	return c
}

// writePages writes a page for c and for each of its subcommands into the folder dir; "":
// it writes none. The names of pages are those to which cobra's pages refer.
func writePages(c *cobra.Command, dir, separator, ending string, page func(*cobra.Command, io.Writer) error) error {
	if dir == "" {
		return nil
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			if err := writePages(sub, dir, separator, ending, page); err != nil {
				return err
			}
		}
	}
	var text bytes.Buffer
	if err := errors.Join(page(c, &text), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", separator) + ending
	return os.WriteFile(filepath.Join(dir, name), text.Bytes(), 0o644)
}

// manPage writes the manual page of c. It has no date, so that it changes only with c.
func manPage(c *cobra.Command, w io.Writer) error {
	var text bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "fincode", Manual: "FinCode", Date: new(time.Time)}
	if err := doc.GenMan(c, header, &text); err != nil {
		return err
	}
	_, err := w.Write(bytes.Replace(text.Bytes(), []byte(header.Date.Format("Jan 2006")), nil, 1))
	return err
}
