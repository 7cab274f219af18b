package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fincodeauth/fincodeauth"
)

// A bareKube sends requests to Secrets by net/http alone.
type bareKube struct {
	client  *http.Client
	secrets string // URL
}

func newBareKube(s kubeStore) bareKube {
	cluster := s.kube.cluster(s.kube.apis[0], s.namespace, s.kube.admin)
	return bareKube{cluster.Client, cluster.Server + "/api/v1/namespaces/" + s.namespace + "/secrets"}
}

// send returns the status of the answer, and decodes the answer into into unless that is
// nil.
func (k bareKube) send(ctx context.Context, method, name, contentType string, body []byte, into any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, k.secrets+"/"+name, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && into != nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(answer, into)
	}
	return resp.StatusCode, err
}

// want200 returns an error unless the status is 200.
func want200(status int, err error) error {
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the API server answered %d", status)
	}
	return err
}

// patch replaces the record under a field of the Secret name, if its version is prev.
func (k bareKube) patch(ctx context.Context, name, field, data, version, prev string) error {
	text := base64.StdEncoding.EncodeToString
	patch := fmt.Sprintf(`[{"op":"test","path":"/data/%[1]sversion","value":%[2]q},{"op":"replace","path":"/data/%[1]sversion","value":%[3]q},{"op":"replace","path":"/data/%[1]srecord","value":%[4]q}]`,
		field, text([]byte(prev)), text([]byte(version)), text([]byte(data)))
	return want200(k.send(ctx, http.MethodPatch, name, "application/json-patch+json", []byte(patch), nil))
}

// getAndPut does the same in two requests. It begins again if another field was changed
// meanwhile, and if nobody knows whether the Secret was written.
func (k bareKube) getAndPut(ctx context.Context, name, field, data, version, prev string) error {
	for {
		var sec struct {
			Metadata object            `json:"metadata"`
			Type     string            `json:"type"`
			Data     map[string][]byte `json:"data"`
		}
		if err := want200(k.send(ctx, http.MethodGet, name, "", nil, &sec)); err != nil {
			return err
		}
		switch there := string(sec.Data[field+"version"]); there {
		case prev:
		case version:
			return nil
		default:
			return fmt.Errorf("%w: version %s, want %s", fincodeauth.ErrConflict, there, prev)
		}
		sec.Data[field+"version"], sec.Data[field+"record"] = []byte(version), []byte(data)
		body, err := json.Marshal(sec)
		if err != nil {
			return err
		}
		status, err := k.send(ctx, http.MethodPut, name, jsonType, body, nil)
		if err != nil || status != http.StatusConflict && status != http.StatusGatewayTimeout {
			return want200(status, err)
		}
	}
}

// openKubeWithBare opens a namespace for a Store, and another one for the same requests.
func openKubeWithBare(b *testing.B) (fincodeauth.Store, bareStore) {
	ours, other := openKube(b), openKube(b)
	fill(b, other)
	names := other.names(b)
	k := newBareKube(other)
	b.Cleanup(k.client.CloseIdleConnections)
	load := func(ctx context.Context, n int) error {
		return want200(k.send(ctx, http.MethodGet, names[user(n)], "", nil, nil))
	}
	// fill has opened the connections of the Store.
	atOnce(b, due, func(n int) error { return load(b.Context(), n) })
	return ours, bareStore{
		load: load,
		save: func(ctx context.Context, n int, data, version, prev string) error {
			return k.patch(ctx, names[user(n)], "", data, version, prev)
		},
	}
}

// shaped are the sessions of BenchmarkKubernetesShapes. With 1,000 in few Secrets, the API
// server gives up on most of them after half a minute.
const shaped = 160

// BenchmarkKubernetesShapes compares ways of keeping sessions that are all saved twice at
// once. kubestore is "OneASecret/Patch".
func BenchmarkKubernetesShapes(b *testing.B) {
	for _, shape := range []struct {
		name string
		per  int // sessions in a Secret
		save func(k bareKube, ctx context.Context, name, field, data, version, prev string) error
	}{
		{"OneASecret/Patch", 1, bareKube.patch},
		{"OneASecret/GetAndPut", 1, bareKube.getAndPut},
		{"16ASecret/Patch", 16, bareKube.patch},
		{"16ASecret/GetAndPut", 16, bareKube.getAndPut},
	} {
		b.Run(shape.name, func(b *testing.B) {
			s := openKube(b)
			data := strings.Repeat("x", 1500) // about what a record has
			name := func(n int) (string, string) { return fmt.Sprint("s", n/shape.per), fmt.Sprintf("%d.", n) }
			makeShape(b, s, name, data)
			k := newBareKube(s)
			b.Cleanup(k.client.CloseIdleConnections)
			prev, round := "v", 0
			began := time.Now()
			for b.Loop() {
				round++
				claim, next := fmt.Sprint("claim-", round), fmt.Sprint("save-", round)
				atOnce(b, shaped, func(n int) error {
					secret, field := name(n)
					if err := shape.save(k, b.Context(), secret, field, data, claim, prev); err != nil {
						return err
					}
					return shape.save(k, b.Context(), secret, field, data, next, claim)
				})
				prev = next
			}
			b.ReportMetric(float64(2*shaped*round)/time.Since(began).Seconds(), "saves/s")
		})
	}
}

// makeShape makes the Secrets for all sessions, with version v.
func makeShape(b *testing.B, s kubeStore, name func(n int) (secret, field string), data string) {
	b.Helper()
	all := make(map[string]map[string][]byte)
	for n := range shaped {
		secret, field := name(n)
		if all[secret] == nil {
			all[secret] = make(map[string][]byte)
		}
		all[secret][field+"version"], all[secret][field+"record"] = []byte("v"), []byte(data)
	}
	secrets := slices.Sorted(maps.Keys(all))
	atOnce(b, len(secrets), func(n int) error {
		sec := object{"metadata": object{"name": secrets[n]}, "data": all[secrets[n]]}
		return s.kube.do(b, http.MethodPost, s.path(b, ""), jsonType, sec, nil)
	})
}
