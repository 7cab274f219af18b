package integration

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

// The command fincode is tested on the other stores where it is.
func TestCommandSharesASessionWithAService(t *testing.T) {
	program := buildCommand(t)
	for name, open := range map[string]func(t *testing.T) (address string, store fincodeauth.Store){
		"etcd":          etcdOfCommand,
		"etcd with TLS": etcdWithTLSOfCommand,
		"Kubernetes":    kubernetesOfCommand,
	} {
		t.Run(name, func(t *testing.T) {
			address, store := open(t)
			srv := fincodetest.NewServer(fincodetest.Config{AccessLifetime: 2 * time.Second})
			defer srv.Close()
			key := newKey()
			fincode := commandIn(t, program, key)
			fincode(fincodetest.Password, "login", "--url", srv.URL, "--email", fincodetest.Email, "--password-stdin", "--store", address, "--session", "operations")

			all, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Store: encrypted(t, store, key)})
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(t, all)
			service := all.Client("operations")
			for deadline := time.Now().Add(30 * time.Second); srv.Counts().Refreshes < 3 && time.Now().Before(deadline); {
				resp, err := service.Get(srv.URL + "/whoami")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if out := fincode("", "call", "GET", "/whoami"); resp.StatusCode != http.StatusOK || !strings.Contains(out, `"client-id"`) {
					t.Fatalf("the service got %s, the command %s", resp.Status, out)
				}
			}
			if c := srv.Counts(); c.Refreshes < 3 || c.Logins != 1 || len(srv.PresentedMoreThanOnce()) > 0 {
				t.Errorf("FinCode saw %+v, want one login, and each token presented once", c)
			}
			if out := fincode("", "status", "--json"); !strings.Contains(out, "operations") {
				t.Errorf("status printed %s", out)
			}
			fincode("", "logout")
			if rec, err := store.Load(t.Context(), "operations"); err != nil || rec.Ended != "logged out" {
				t.Errorf("after a logout, the store has %v, %v", rec, err)
			}
		})
	}
}

// buildCommand builds fincode.
func buildCommand(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fincode")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "cmd", "fincode")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// commandIn returns a function that runs program with an input, and returns its output.
// All of its runs have one state folder. A run that fails ends the test.
func commandIn(t *testing.T, program string, key []byte) func(input string, args ...string) string {
	state := t.TempDir()
	return func(input string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, append(args, "--state", state)...)
		cmd.Env = append(os.Environ(), "FINCODE_KEY="+base64.StdEncoding.EncodeToString(key))
		cmd.Stdin = strings.NewReader(input)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("fincode %s: %v: %s", args[0], err, &stderr)
		}
		return stdout.String()
	}
}

// etcdOfCommand returns an address of etcd for the command, and the Store there.
func etcdOfCommand(t *testing.T) (string, fincodeauth.Store) {
	p := openSharedEtcd(t)
	return "etcd://" + strings.Join(endpoints(sharedEtcd(t).members...), ",") + "/" + p.name, p.Store
}

// kubernetesOfCommand returns a namespace for the command, by a proxy that does what
// kubectl proxy does, and the Store there.
func kubernetesOfCommand(t *testing.T) (string, fincodeauth.Store) {
	ks := openKube(t)
	api := ks.kube.apis[0]
	target := &url.URL{Scheme: "https", Host: api.addr}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: kubeClient(ks.kube.roots, ks.kube.admin, api.addr).Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
	})
	t.Cleanup(proxy.Close)
	return "kubernetes://" + ks.namespace + "?proxy=" + proxy.Listener.Addr().String(), ks.Store
}
