package main

import (
	"context"
	"path"
	"path/filepath"
	"strings"
)

// buildTool builds a tool in the version of this module's go.mod, in dir. It
// returns its path. The same source gives the same program, wherever it is.
func buildTool(ctx context.Context, dir, pkg string) (string, error) {
	const own = "github.com/fincodeauth/fincodeauth/dev/release"
	out, err := command(ctx, ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", own)
	if err != nil {
		return "", err
	}
	tool := filepath.Join(dir, path.Base(pkg)+".exe")
	_, err = command(ctx, strings.TrimSpace(out), []string{"GOWORK=off"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", tool, pkg)
	return tool, err
}
