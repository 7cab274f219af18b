package bench_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	gcp "cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/smithy-go/auth/bearer"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/bradleyfalzon/ghinstallation/v2"
	"golang.org/x/oauth2"
	clientgo "k8s.io/client-go/transport"

	"github.com/fincodeauth/fincodeauth"
)

// A client is a peer that is set up for one account.
type client struct {
	http.RoundTripper

	// token looks up a token. It is nil if the peer has no call for that.
	token func(context.Context) error
}

// A peer is one way to authenticate requests.
type peer struct {
	name string
	open func(testing.TB, *account) client
}

// The peers, in the order of the report. The comment at each constructor says
// what the peer does more or less than fincodeauth. None of them keeps a token in
// a store, waits for other processes, or repeats a request after a plain 401.
var (
	floor = peer{"floor", openFloor}
	ours  = peer{"fincodeauth", openFincodeauth}
	peers = []peer{
		floor,
		ours,
		{"oauth2", openOAuth2},
		{"client-go", openClientGo},
		{"gcp-auth", openGCP},
		{"azcore", openAzcore},
		{"smithy", openSmithy},
		{"ghinstallation", openGHInstallation},
	}
)

func openFincodeauth(tb testing.TB, a *account) client {
	tb.Helper()
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: a.url, Base: a.base})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { sessions.Close(context.Background()) })
	if err := sessions.Adopt(tb.Context(), "ada", a.pair); err != nil {
		tb.Fatal(err)
	}
	source := sessions.TokenSource("ada")
	return client{sessions.Transport("ada"), func(context.Context) error {
		_, err := source.Token()
		return err
	}}
}

// openFloor does the least that the contract of http.RoundTripper allows. It
// makes a shallow copy of the request, gives the copy its own header map, and
// sets the fields that fincodeauth sets. Their values are made beforehand. Its
// look-up of a token only reads the clock.
func openFloor(tb testing.TB, a *account) client {
	type field struct {
		name   string
		values []string
	}
	var own []field
	for name, values := range ownFields(a) {
		own = append(own, field{name, values})
	}
	return client{
		roundTripper(func(req *http.Request) (*http.Response, error) {
			out := *req
			out.Header = make(http.Header, len(req.Header)+len(own))
			for _, field := range own {
				out.Header[field.name] = field.values
			}
			maps.Copy(out.Header, req.Header) // the caller's fields win
			return a.base.RoundTrip(&out)
		}),
		func(context.Context) error {
			if time.Now().IsZero() {
				return io.EOF
			}
			return nil
		},
	}
}

// ownFields returns the header fields that fincodeauth sets.
func ownFields(a *account) http.Header {
	fields := fincodeauth.DefaultHeader()
	fields.Set("Authorization", "Bearer "+a.pair.AccessToken)
	fields.Set("X-Auth-Token", a.pair.AccessToken)
	return fields
}

type tokenFunc func() (*oauth2.Token, error)

func (f tokenFunc) Token() (*oauth2.Token, error) { return f() }

// openOAuth2 sets one field in a deep copy of the request. All callers wait for
// a refresh, even when their contexts are done. With early, it uses
// ReuseTokenSourceWithExpiry. Without early, it uses ReuseTokenSource, which
// treats a token as expired 10 s too early. A short token lives less than 10 s,
// so ReuseTokenSource gets an expiry that is 10 s later.
func openOAuth2(_ testing.TB, a *account) client {
	const margin = 10 * time.Second
	source := oauth2.ReuseTokenSource(nil, tokenFunc(func() (*oauth2.Token, error) {
		tok, err := a.refresh(context.Background())
		if err == nil {
			tok.Expiry = tok.Expiry.Add(margin)
		}
		return tok, err
	}))
	if a.early > 0 {
		source = oauth2.ReuseTokenSourceWithExpiry(nil, tokenFunc(func() (*oauth2.Token, error) {
			return a.refresh(context.Background())
		}), a.early)
	}
	return client{&oauth2.Transport{Source: source, Base: a.base}, lookUp(source)}
}

func lookUp(source oauth2.TokenSource) func(context.Context) error {
	return func(context.Context) error {
		_, err := source.Token()
		return err
	}
}

// openClientGo wraps x/oauth2's Transport. After a 401, it gets a new token for
// the next request. All callers wait for a refresh.
func openClientGo(_ testing.TB, a *account) client {
	source := clientgo.NewCachedTokenSource(tokenFunc(func() (*oauth2.Token, error) {
		return a.refresh(context.Background())
	}))
	return client{clientgo.ResettableTokenSourceWrapTransport(source)(a.base), lookUp(source)}
}

// openGCP sets one field in a deep copy of the request and checks the universe
// domain. With early, it refreshes in the background. It uses only the
// middleware, because NewClient would copy each request twice and trace it.
func openGCP(tb testing.TB, a *account) client {
	cached := gcp.NewCachedTokenProvider(providerFunc(func(ctx context.Context) (*gcp.Token, error) {
		tok, err := a.refresh(ctx)
		if err != nil {
			return nil, err
		}
		return &gcp.Token{Value: tok.AccessToken, Type: "Bearer", Expiry: tok.Expiry}, nil
	}), &gcp.CachedTokenProviderOptions{
		ExpireEarly:         max(a.early, time.Nanosecond), // 0 means 225 s
		DisableAsyncRefresh: a.early == 0,
	})
	hc := &http.Client{Transport: a.base}
	credentials := gcp.NewCredentials(&gcp.CredentialsOptions{TokenProvider: cached})
	if err := httptransport.AddAuthorizationMiddleware(hc, credentials); err != nil {
		tb.Fatal(err)
	}
	return client{hc.Transport, func(ctx context.Context) error {
		_, err := credentials.Token(ctx)
		return err
	}}
}

type providerFunc func(context.Context) (*gcp.Token, error)

func (f providerFunc) Token(ctx context.Context) (*gcp.Token, error) { return f(ctx) }

// openAzcore sends requests through a pipeline, because azcore has no
// RoundTripper. The pipeline has policies for retries (none are made), headers
// and logs (none are written). The policy for retries copies the request. azcore
// refuses a URL that is not https, and repeats a request after a 401 with a
// challenge of Azure's. With early, the caller that refreshes waits, and the
// other callers do not. azcore tries an early refresh at most once in 30 s.
func openAzcore(_ testing.TB, a *account) client {
	pipeline := runtime.NewPipeline("bench", "v1.0.0", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(azureCredential{a}, []string{"scope"}, nil)},
	}, &policy.ClientOptions{
		Transport: azureTransport{a.base},
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	})
	return client{roundTripper(func(req *http.Request) (*http.Response, error) {
		r, err := runtime.NewRequestFromRequest(req)
		if err != nil {
			return nil, err
		}
		runtime.SkipBodyDownload(r) // a RoundTripper does not read the body
		return pipeline.Do(r)
	}), nil}
}

type azureTransport struct{ http.RoundTripper }

func (t azureTransport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

type azureCredential struct{ *account }

func (c azureCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	tok, err := c.refresh(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	// A RefreshOn of zero means 5 minutes before the expiry.
	return azcore.AccessToken{Token: tok.AccessToken, ExpiresOn: tok.Expiry, RefreshOn: tok.Expiry.Add(-c.early)}, nil
}

// openSmithy puts a thin RoundTripper around smithy's token cache and signer. It
// sets one field in a deep copy of the request, and refuses a URL that is not
// https. With early, it refreshes in the background.
func openSmithy(_ testing.TB, a *account) client {
	cache := bearer.NewTokenCache(bearer.TokenProviderFunc(func(ctx context.Context) (bearer.Token, error) {
		tok, err := a.refresh(ctx)
		if err != nil {
			return bearer.Token{}, err
		}
		return bearer.Token{Value: tok.AccessToken, CanExpire: true, Expires: tok.Expiry}, nil
	}), func(o *bearer.TokenCacheOptions) {
		o.RefreshBeforeExpires = a.early
		o.DisableAsyncRefresh = a.early == 0
	})
	signer := bearer.NewSignHTTPSMessage()
	return client{
		roundTripper(func(req *http.Request) (*http.Response, error) {
			ctx := req.Context()
			tok, err := cache.RetrieveBearerToken(ctx)
			if err != nil {
				return nil, err
			}
			signed, err := signer.SignWithBearerToken(ctx, tok, &smithyhttp.Request{Request: req})
			if err != nil {
				return nil, err
			}
			return a.base.RoundTrip(signed.(*smithyhttp.Request).WithContext(ctx)) // the signer drops the context
		}),
		func(ctx context.Context) error {
			_, err := cache.RetrieveBearerToken(ctx)
			return err
		},
	}
}

// openGHInstallation sets one field in a copy of the request, and one more if it
// is missing. ghinstallation only talks to GitHub, so the base here answers in
// GitHub's place with the account's token. ghinstallation treats a token as
// expired a minute too early.
func openGHInstallation(tb testing.TB, a *account) client {
	t, err := ghinstallation.New(roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodPost {
			return a.base.RoundTrip(req)
		}
		tok, err := a.refresh(req.Context())
		if err != nil {
			return nil, err
		}
		body, err := json.Marshal(map[string]any{"token": tok.AccessToken, "expires_at": tok.Expiry})
		return &http.Response{StatusCode: http.StatusCreated, Body: io.NopCloser(bytes.NewReader(body))}, err
	}), 1, 1, githubKey())
	if err != nil {
		tb.Fatal(err)
	}
	return client{t, func(ctx context.Context) error {
		_, err := t.Token(ctx)
		return err
	}}
}

// githubKey makes the key once, because that takes a noticeable part of a second.
var githubKey = sync.OnceValue(func() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
})
