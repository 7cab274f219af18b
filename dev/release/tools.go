package main

import (
	"context"
	"strings"
)

// toolPath returns the path of a tool in the version of this module's go.mod. It is
// built if necessary. The same source gives the same program, wherever it is.
func toolPath(ctx context.Context, name string) (string, error) {
	const own = "github.com/fincodeauth/fincodeauth/dev/release"
	dir, err := command(ctx, ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", own)
	if err != nil {
		return "", err
	}
	env := []string{"GOWORK=off", "GOFLAGS=-trimpath -buildvcs=false"}
	tool, err := command(ctx, strings.TrimSpace(dir), env, "go", "tool", "-n", name)
	return strings.TrimSpace(tool), err
}
