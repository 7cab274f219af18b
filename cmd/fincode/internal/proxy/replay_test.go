package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

func TestAllKeptBodiesTogetherHaveALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		again := true
		transport := replaying{all: &budget{left: 1000}, limit: 600, next: readsTwice{&again}}
		send := func() (end context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://fincode/", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 600))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := transport.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
			return cancel
		}
		endFirst := send()
		if !again {
			t.Error("the first body is not kept")
		}
		endSecond := send()
		if again {
			t.Error("the second body is kept, although there is no room for it")
		}
		endFirst()
		endSecond()
		synctest.Wait()
		if transport.all.left != 1000 {
			t.Errorf("there is room for %d bytes after all requests, want 1000", transport.all.left)
		}
		defer send()()
		if !again {
			t.Error("the third body is not kept, although the others are gone")
		}
	})
}

// A readsTwice reads a body, and notes whether it could be sent again.
type readsTwice struct{ again *bool }

func (r readsTwice) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	_, err := req.GetBody()
	*r.again = err == nil
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}
