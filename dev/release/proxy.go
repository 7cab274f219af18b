package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	xmodule "golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// maxFileSize is what a file in a module may have, in bytes. Every user downloads
// every file.
const maxFileSize = 1 << 20

// proxy is a folder that go get takes modules from: what the tags will be once
// they are pushed. It has its own module cache, because a tag may still change.
type proxy struct {
	dir   string
	cache string
	env   []string // for the go command
}

// newProxy makes an empty proxy in dir. Other modules than those of this
// repository, whose root has the path root, come from where they come today.
func newProxy(ctx context.Context, dir, root string) (*proxy, error) {
	p := &proxy{dir: filepath.Join(dir, "proxy"), cache: filepath.Join(dir, "cache")}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	out, err := command(ctx, dir, nil, "go", "env", "-json", "GOPROXY", "GOMODCACHE", "GOFLAGS", "GOSUMDB", "GONOSUMDB")
	if err != nil {
		return nil, err
	}
	var env map[string]string
	if err := json.Unmarshal([]byte(out), &env); err != nil {
		return nil, err
	}
	downloaded := fileURL(filepath.Join(env["GOMODCACHE"], "cache", "download"))
	own := strings.TrimSuffix(root, majorSuffix(root))
	p.env = []string{
		"GOWORK=off",
		"GOMODCACHE=" + p.cache,
		"GOPROXY=" + fileURL(p.dir) + "," + downloaded + "," + env["GOPROXY"],
		// No module may bypass the proxy. "GONOPROXY=none" is not the same: with it,
		// go get looks into its cache first, and takes a package of redisstore for
		// one that the root lacks.
		"GOENV=off", "GOPRIVATE=", "GONOPROXY=",
		"GOSUMDB=" + env["GOSUMDB"],
		"GONOSUMDB=" + strings.TrimPrefix(env["GONOSUMDB"]+","+own, ","),
		"GOFLAGS=" + strings.TrimSpace(env["GOFLAGS"]+" -modcacherw"),
	}
	return p, nil
}

func fileURL(dir string) string {
	slashed := filepath.ToSlash(dir)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // a drive of Windows
	}
	return (&url.URL{Scheme: "file", Path: slashed}).String()
}

// add adds a version of a module, which is the one at commit in repo.
func (p *proxy) add(ctx context.Context, repo repository, commit string, m module, version string) error {
	escaped, err := xmodule.EscapePath(m.path())
	if err != nil {
		return err
	}
	dir := filepath.Join(p.dir, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	goMod, err := repo.read(ctx, commit, m.within("go.mod"))
	if err != nil {
		return err
	}
	committed, err := repo.timeOf(ctx, commit)
	if err != nil {
		return err
	}
	info := fmt.Sprintf(`{"Version":%q,"Time":%q}`, version, committed.Format(time.RFC3339))
	return errors.Join(
		os.WriteFile(filepath.Join(dir, version+".info"), []byte(info), 0o644),
		os.WriteFile(filepath.Join(dir, version+".mod"), goMod, 0o644),
		writeZip(filepath.Join(dir, version+".zip"), repo, commit, m, version),
		appendLine(filepath.Join(dir, "list"), version),
	)
}

// writeZip writes the module's files, as the go command will make a zip of them.
func writeZip(name string, repo repository, commit string, m module, version string) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	subdir := m.dir
	if subdir == "." {
		subdir = ""
	}
	return modzip.CreateFromVCS(file, xmodule.Version{Path: m.path(), Version: version}, repo.dir, commit, subdir)
}

func appendLine(name, line string) (err error) {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = fmt.Fprintln(file, line)
	return err
}

// checkZip checks that a module's zip has a licence and no large file.
func (p *proxy) checkZip(m module, version string) (err error) {
	escaped, err := xmodule.EscapePath(m.path())
	if err != nil {
		return err
	}
	archive, err := zip.OpenReader(filepath.Join(p.dir, filepath.FromSlash(escaped), "@v", version+".zip"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	prefix := m.path() + "@" + version
	licensed := false
	var problems []error
	for _, file := range archive.File {
		licensed = licensed || file.Name == path.Join(prefix, "LICENSE") && file.UncompressedSize64 > 0
		if file.UncompressedSize64 > maxFileSize {
			problems = append(problems, fmt.Errorf("%s has %d bytes, want at most %d", file.Name, file.UncompressedSize64, maxFileSize))
		}
	}
	if !licensed {
		problems = append(problems, fmt.Errorf("%s has no LICENSE", prefix))
	}
	return errors.Join(problems...)
}
