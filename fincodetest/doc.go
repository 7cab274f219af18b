// Package fincodetest is a FinCode to test against: it logs users in, rotates refresh tokens that work once, answers API calls,
// counts what it saw, and goes wrong on demand.
//
// On a socket, for any program that takes a base URL:
//
//	srv := fincodetest.NewServer(fincodetest.Config{})
//	defer srv.Close()
//	// give the program srv.URL, fincodetest.Email and fincodetest.Password
//
// In memory, as the [http.RoundTripper] under a client: no socket and no goroutine, so time can be a [testing/synctest] bubble's,
// and an hour until a token expires passes at once. Any host will do, as long as the path begins with [Root]:
//
//	fc := fincodetest.New(fincodetest.Config{})
//	client := &http.Client{Transport: fc}
//
// Under httpmock, [FinCode.RoundTrip] is a responder: httpmock.RegisterNoResponder(fc.RoundTrip).
//
// # What it answers
//
// Every call needs the headers Content-Type (application/json), platform and uuid; without them the answer is a 400 that says which.
//
//   - PUT /securitymanagement/login, /securitymanagement/refresh-token and /securitymanagement/logout do what FinCode's do.
//   - /whoami, with any method, answers the claims of the access token, under "data".
//   - Any other path under the root echoes the request under "data": method, path, query, headers and body.
//
// What FinCode's documentation leaves open, such as the names in a token answer, is a field of [Config]; test the variants that
// matter to you.
//
// # What can go wrong
//
// [FinCode.Inject] spoils the next calls of an operation. This loses the answers to the next three refreshes after FinCode has
// already rotated the token, the worst a network can do:
//
//	srv.Inject(fincodetest.Refresh, 3, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
//
// A stolen refresh token needs no special method: present it with a plain call, behind the client's back, and the client's own
// next refresh is a reuse (see the example Stolen). [FinCode.RevokeAccessTokens] is an administrator's "log everybody out", up to
// their next refresh; a session that has ended for good is a [Fault] of kind [ErrorStatus] with status 401 on [Refresh].
//
// [FinCode.Counts], [FinCode.Presented] and [FinCode.PresentedMoreThanOnce] tell what the client did.
package fincodetest
