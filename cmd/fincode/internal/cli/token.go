package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

func (a *app) tokenCommand() *cobra.Command {
	var header, asJSON bool
	c := &cobra.Command{
		Use:   "token",
		Short: "Print a valid access token",
		Long: `token prints the session's access token. If it has expired, or will within minutes,
token refreshes it first. It never prints a refresh token.

Whoever has the access token can use the session until the token expires.

With --json it prints an ExecCredential of client.authentication.k8s.io, which kubectl
and similar tools read. It has the version that KUBERNETES_EXEC_INFO asks for, or v1.`,
		Example: `  TOKEN=$(fincode token)
  fincode token --header
  kubectl config set-credentials fincode --exec-api-version=client.authentication.k8s.io/v1 \
    --exec-interactive-mode=Never --exec-command=fincode --exec-arg=token --exec-arg=--json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.token(cmd.Context(), header, asJSON) },
	}
	c.Flags().BoolVar(&header, "header", false, "print it as the header field Authorization")
	c.Flags().BoolVar(&asJSON, "json", false, "print it as an ExecCredential")
	return c
}

func (a *app) token(ctx context.Context, header, asJSON bool) (err error) {
	if header && asJSON {
		return failure.New(failure.Usage, "--header and --json both say how to print the token: leave one out")
	}
	version, err := execVersion(a.Getenv("KUBERNETES_EXEC_INFO"))
	if err != nil && asJSON {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	s, err := a.openProfile(ctx, p, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	tok, err := s.freshToken(ctx)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		err = printJSON(a.Out, newExecCredential(version, tok))
	case header:
		_, err = fmt.Fprintf(a.Out, "Authorization: Bearer %s\n", tok.AccessToken)
	default:
		_, err = fmt.Fprintln(a.Out, tok.AccessToken)
	}
	return err
}

// An execCredential is what a credential plugin prints
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
type execCredential struct {
	Kind       string     `json:"kind"`
	APIVersion string     `json:"apiVersion"`
	Status     execStatus `json:"status"`
}

type execStatus struct {
	Expiration time.Time `json:"expirationTimestamp,omitzero"` // zero: nobody knows
	Token      string    `json:"token"`
}

const (
	execKind  = "ExecCredential"
	execGroup = "client.authentication.k8s.io/"
)

func newExecCredential(version string, tok *oauth2.Token) execCredential {
	c := execCredential{Kind: execKind, APIVersion: version, Status: execStatus{Token: tok.AccessToken}}
	if !tok.Expiry.IsZero() {
		c.Status.Expiration = tok.Expiry.UTC().Truncate(time.Second) // rather a second early than late
	}
	return c
}

// execVersion returns the version that the caller asks for in KUBERNETES_EXEC_INFO, which
// is an ExecCredential; "": it asks for none.
func execVersion(info string) (string, error) {
	if info == "" {
		return execGroup + "v1", nil
	}
	var asked execCredential
	if err := json.Unmarshal([]byte(info), &asked); err != nil || asked.Kind != execKind {
		return "", failure.New(failure.Usage, "KUBERNETES_EXEC_INFO is no %s: unset it, or let kubectl set it", execKind)
	}
	switch asked.APIVersion {
	case execGroup + "v1", execGroup + "v1beta1":
		return asked.APIVersion, nil
	}
	return "", failure.New(failure.Usage, "KUBERNETES_EXEC_INFO asks for %q: use %sv1 or %[2]sv1beta1 in the kubeconfig", asked.APIVersion, execGroup)
}
