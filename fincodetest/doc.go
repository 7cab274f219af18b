// Package fincodetest is a FinCode to test against. It logs users in, rotates
// refresh tokens that work once, answers API calls, counts what it saw, and fails
// in the ways that a test asks for.
//
// On a socket, for any program that has a setting for the base URL:
//
//	srv := fincodetest.NewServer(fincodetest.Config{})
//	defer srv.Close()
//	// give the program srv.URL, fincodetest.Email and fincodetest.Password
//
// In memory, as the [http.RoundTripper] of a client. There is no socket and no
// goroutine, so a test can run in a [testing/synctest] bubble, where an hour until
// a token expires passes at once. Any host works, if the path begins with [Root]:
//
//	fc := fincodetest.New(fincodetest.Config{})
//	client := &http.Client{Transport: fc}
//
// With httpmock, [FinCode.RoundTrip] is a responder:
// httpmock.RegisterNoResponder(fc.RoundTrip).
//
// # What it answers
//
// Every call needs the headers Content-Type (application/json), platform and uuid.
// Without them the answer is a 400 that names the missing header.
//
//   - PUT /securitymanagement/login, /securitymanagement/refresh-token and
//     /securitymanagement/logout do what FinCode does.
//   - /whoami, with any method, answers with the claims of the access token, under
//     "data".
//   - Any other path under the root answers with the request, under "data": method,
//     path, query, headers and body.
//
// FinCode's documentation leaves some things open, such as the field names of a
// token answer. [Config] has a field for each of them. Test with the variants that
// matter to you.
//
// # What can go wrong
//
// [FinCode.Inject] makes the next calls of an operation fail. This example loses
// the answers to the next three refreshes after FinCode has rotated the token.
// That is the worst that a network can do:
//
//	srv.Inject(fincodetest.Refresh, 3, fincodetest.Fault{Kind: fincodetest.HangUp, TakesEffect: true})
//
// To steal a refresh token, present it with a plain call of your own. The next
// refresh of the client under test is then a reuse (see the example Stolen).
// [FinCode.RevokeAccessTokens] makes all access tokens invalid. Refresh tokens stay
// valid. To end a session for good, inject a [Fault] of kind [ErrorStatus] with
// status 401 into [Refresh].
//
// [FinCode.Counts], [FinCode.Presented] and [FinCode.PresentedMoreThanOnce] report
// what the client did.
package fincodetest
