package compose

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
)

const (
	mega  = 1 << 20
	large = 200 * mega // of a body
	bound = 16 * mega  // what a body of any length may take, on both sides together
)

// A zeros is a body of n bytes that is in no memory.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

// newDepot serves bodies on a socket: a POST is answered with the length of its body,
// a GET with as many bytes as its query says.
func newDepot(t *testing.T, fc *fincodetest.FinCode) (root string) {
	t.Helper()
	server := httptest.NewServer(guarded(fc, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				t.Error(err)
			}
			io.WriteString(w, strconv.FormatInt(n, 10))
			return
		}
		n, err := strconv.ParseInt(r.URL.RawQuery, 10, 64)
		if err != nil {
			t.Error(err)
		}
		io.Copy(w, &zeros{n})
	})))
	t.Cleanup(server.Close)
	return server.URL + fincodetest.Root
}

// allocated returns how many bytes this process allocates during f, whether they are
// freed or not. So the heap does not grow by more.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// upload sends n bytes. With again set, the body has GetBody.
func upload(t *testing.T, client *http.Client, root string, n int64, again bool) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, root+"/files", &zeros{n})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = n
	if again {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&zeros{n}), nil }
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestTwoHundredMegabytesGoEitherWayInConstantMemory(t *testing.T) {
	fc := newFinCode()
	root := newDepot(t, fc)
	base := new(http.Transport)
	t.Cleanup(base.CloseIdleConnections)
	sessions := newSessions(t, fincodeauth.Config{BaseURL: root, Base: base})
	client := sessions.Client(ada)
	wantUpload := func(t *testing.T, again bool) {
		resp := upload(t, client, root, large, again)
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != strconv.Itoa(large) {
			t.Errorf("%s, %s bytes arrived, want %d", resp.Status, got, large)
		}
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"up", func(t *testing.T) { wantUpload(t, false) }},
		{"up, and again after a revocation", func(t *testing.T) {
			age(t, sessions)
			fc.RevokeAccessTokens()
			wantUpload(t, true)
			if n := fc.Counts().Refreshes; n != 1 {
				t.Errorf("there were %d refreshes, want 1", n)
			}
		}},
		{"down", func(t *testing.T) {
			resp, err := client.Get(root + "/files?" + strconv.Itoa(large))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); n != large || err != nil {
				t.Errorf("%d bytes arrived, error %v, want %d", n, err, large)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := allocated(func() { test.run(t) })
			t.Logf("%.1f MB were allocated", float64(n)/mega)
			if n > bound {
				t.Errorf("%d MB were allocated, want at most %d", n/mega, bound/mega)
			}
		})
	}
}

// retryablehttp reads a body that it cannot rewind into memory before it sends it.
func TestRetryablehttpKeepsAnyReaderInMemory(t *testing.T) {
	const size = 20 * mega
	for _, test := range []struct {
		name string
		body func() any
		kept bool
	}{
		{"any reader", func() any { return reader{&zeros{size}} }, true},
		{"a function", func() any {
			return func() (io.Reader, error) { return &zeros{size}, nil }
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := newDepot(t, newFinCode())
			base := new(http.Transport)
			t.Cleanup(base.CloseIdleConnections)
			retrier := retriesOf(newSessions(t, fincodeauth.Config{BaseURL: root, Base: base}).Client(ada))
			n := allocated(func() {
				resp, err := retrier.Post(root+"/files", "application/json", test.body())
				if err != nil {
					t.Fatal(err)
				}
				if got := bodyOf(t, resp); got != strconv.Itoa(size) {
					t.Errorf("%s bytes arrived, want %d", got, size)
				}
			})
			if kept := n > size; kept != test.kept {
				t.Errorf("%d MB were allocated for %d MB, want that the body is kept: %t", n/mega, size/mega, test.kept)
			}
		})
	}
}
