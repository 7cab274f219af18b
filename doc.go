// Package fincodeauth keeps FinCode sessions usable under an ordinary
// *http.Client.
//
// A FinCode access token lives for about an hour, and the refresh token that
// replaces it works once. If the answer to one refresh is lost, the user is
// logged out. If two processes present the same token, FinCode reports a breach.
// This package takes care of that. The smallest program:
//
//	sessions, err := fincodeauth.New(fincodeauth.Config{
//		BaseURL: fincodeauth.Sandbox("your-tenant"),
//	})
//	if err != nil {
//		return err
//	}
//	err = sessions.Login(ctx, "operations", fincodeauth.Credentials{Email: email, Password: password})
//	if err != nil {
//		return err
//	}
//	client := sessions.Client("operations") // an *http.Client; use it like any other
//
// # The promise
//
// Every refresh token is presented once, its successor is never lost, and no
// request waits for a refresh that could have happened earlier. This holds
// across goroutines, processes, machines, restarts, and faults of the network,
// the server and the store.
//
// There is one exception. FinCode rotates a token, and a moment later its
// successor is saved, in the store or in a [Journal]. In between, the successor
// exists only on the network or in the memory of one process. If the answer is
// lost or the process dies then, nobody knows the successor. The package then presents the old token again, on
// purpose, because this is the only way to go on. If FinCode refuses it, the
// session ends with a [SessionError] whose Interrupted is set, so that nobody
// mistakes this for a theft.
//
// Refreshes happen on use. If a token expired while nobody used it, the next
// request waits for a refresh. A session that nobody uses for too long dies, unless
// [Sessions.KeepAlive] refreshes it.
//
// # How it fits
//
//   - [Sessions] are the sessions of one tenant, each under a key of your choice:
//     the name of an account, or the ID of a user. [Sessions.Login] and
//     [Sessions.Adopt] begin a session, [Sessions.Logout] ends it, and
//     [Sessions.Forget] removes a damaged record. [Sessions.Keys] lists them, and
//     [Sessions.Status] says how each of them is.
//   - A [TokenSource] hands out one session's access token, and refreshes it
//     before it expires. It is an oauth2.TokenSource, and a
//     credentials.PerRPCCredentials of gRPC.
//   - A [Transport] is an http.RoundTripper that sends a request with that token,
//     and with a new token once more after a 401. [Sessions.Client] returns an
//     http.Client that uses one. With the key "" one client serves every session,
//     and [WithSession] names the session of a request.
//   - A [Store] keeps the sessions where other processes and later runs find
//     them. A [MemoryStore] loses them when the process ends. [LocalStore] makes
//     a Store of two functions, for one process. Packages filestore, sqlstore,
//     redisstore, etcdstore and kubestore serve many processes. [Encrypt] encrypts
//     the tokens in any Store.
//     [Journal] keeps a new token on the local disk while the Store is down.
//
// Call [Sessions.Close] before the process ends. It waits until every rotated
// token is saved, for as long as its context allows: give it a deadline, and
// look at its error.
//
// # The rotation protocol
//
// The protocol needs only a compare-and-swap of the store. To refresh, a process
//
//  1. loads the record, and is done if another process has refreshed;
//  2. stops if the session has ended;
//  3. waits while another process is refreshing. If the claim of that process
//     has not changed for twice Config.RefreshTimeout, that process is dead;
//  4. claims the refresh, by saving the record with RefreshStarted set;
//  5. presents the refresh token and saves the result over the claim, as often as
//     it takes. The result is the new pair, or the end of the session if FinCode
//     refused the token;
//  6. loads the record again whenever the outcome of a save is unknown.
//
// # Where to go next
//
// The examples show many users behind one client, tests with httpmock, other
// middleware, a reverse proxy, a Store of your own, and what to do after each
// kind of error ([SessionError], [EndpointError]). [LogEvents] logs what happens,
// and [Event] is also for metrics. Package fincodetest is a FinCode to test
// against. Package storetest has the tests that a Store must pass.
package fincodeauth
