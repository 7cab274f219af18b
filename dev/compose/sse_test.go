package compose

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-resty/resty/v2"

	"github.com/fincodeauth/fincodeauth"
)

// streamed is how long a stream of events lasts. There is one event each minute.
const streamed = 2*lifetime + lifetime/2

// sendEvents is an endpoint with server-sent events. The data of an event is when
// it was sent.
func sendEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for began := time.Now(); time.Since(began) < streamed; {
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(time.Minute):
		case <-r.Context().Done():
			return
		}
	}
}

// readEvents reads events until the stream ends. It calls each after each event and
// returns the number of events, and how long the slowest event took.
func readEvents(t *testing.T, body io.ReadCloser, each func()) (n int, slowest time.Duration, err error) {
	t.Helper()
	defer body.Close()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		sent, err := strconv.ParseInt(data, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n++
		slowest = max(slowest, time.Since(time.Unix(0, sent)))
		each()
	}
	return n, slowest, lines.Err()
}

func TestServerSentEventsArriveAtOnceAndTheirStreamOutlivesItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		base := serve(t, guarded(fc, http.HandlerFunc(sendEvents)))
		sessions := newSessions(t, fincodeauth.Config{BaseURL: served, Base: base})
		resp, err := sessions.Client(ada).Get(served + "/events")
		if err != nil {
			t.Fatal(err)
		}
		first := tokenOf(t, sessions.TokenSource(ada))
		n, slowest, err := readEvents(t, resp.Body, func() { tokenOf(t, sessions.TokenSource(ada)) }) // other requests go on
		if want := int(streamed / time.Minute); n != want || err != nil {
			t.Errorf("%d events arrived, error %v, want %d", n, err, want)
		}
		if slowest != 0 {
			t.Errorf("an event took %v, want that each arrives at once", slowest)
		}
		if tokenOf(t, sessions.TokenSource(ada)) == first || fc.Counts().Refreshes < 2 {
			t.Errorf("there were %d refreshes during the stream, want 2", fc.Counts().Refreshes)
		}
	})
}

// After a stream has broken, whoever opens it again does that with another token.
func TestAStreamOfServerSentEventsIsOpenedAfterARevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := newFinCode()
		base := serve(t, guarded(fc, http.HandlerFunc(sendEvents)))
		client := newSessions(t, fincodeauth.Config{BaseURL: served, Base: base}).Client(ada)
		revoke(fc)
		resp, err := client.Get(served + "/events")
		if err != nil {
			t.Fatal(err)
		}
		if n, _, err := readEvents(t, resp.Body, func() {}); n == 0 || err != nil {
			t.Errorf("%s, %d events, error %v, want events", resp.Status, n, err)
		}
	})
}

func TestAClientTimeoutCutsServerSentEventsOff(t *testing.T) {
	const timeout = 10*time.Minute + time.Second
	synctest.Test(t, func(t *testing.T) {
		base := serve(t, guarded(newFinCode(), http.HandlerFunc(sendEvents)))
		client := newSessions(t, fincodeauth.Config{BaseURL: served, Base: base}).Client(ada)
		client.Timeout = timeout
		resp, err := client.Get(served + "/events")
		if err != nil {
			t.Fatal(err)
		}
		n, _, err := readEvents(t, resp.Body, func() {})
		if !errors.Is(err, context.DeadlineExceeded) || n != 11 {
			t.Errorf("%d events arrived, error %v, want 11 and the timeout", n, err)
		}
	})
}

// resty reads an answer to its end before it returns it.
func TestRestyHoldsServerSentEventsBackUnlessItDoesNotParse(t *testing.T) {
	for _, test := range []struct {
		name   string
		parses bool
		want   time.Duration // that the slowest event takes
	}{
		{"SetDoNotParseResponse", false, 0},
		{"its own settings", true, streamed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := serve(t, guarded(newFinCode(), http.HandlerFunc(sendEvents)))
				client := resty.NewWithClient(newSessions(t, fincodeauth.Config{BaseURL: served, Base: base}).Client(ada))
				resp, err := client.R().SetDoNotParseResponse(!test.parses).Get(served + "/events")
				if err != nil {
					t.Fatal(err)
				}
				body := resp.RawBody()
				if test.parses {
					body = io.NopCloser(strings.NewReader(resp.String()))
				}
				if n, slowest, err := readEvents(t, body, func() {}); n == 0 || err != nil || slowest != test.want {
					t.Errorf("%d events, error %v, the slowest took %v, want %v", n, err, slowest, test.want)
				}
			})
		})
	}
}
