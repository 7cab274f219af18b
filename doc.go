// Package fincodeauth keeps FinCode sessions alive under an ordinary
// *http.Client.
//
// A FinCode access token lives for about an hour, and the refresh token that
// replaces it works once. Lose the answer to one refresh, or let two processes
// present the same token, and the user is logged out or flagged as breached.
// The smallest program has nothing to do with any of that:
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
//	client := sessions.Client("operations") // an *http.Client; use it as any other
//
// # The promise
//
// Every refresh token is presented once, its successor is never lost, and no
// request waits for a refresh that could have happened earlier: across
// goroutines, processes, machines, restarts, and faults of the network, the
// server and the store.
//
// There is one exception. Between the moment in which FinCode rotates a token
// and the one in which its successor is saved, the successor exists only in a
// process or on its way to one. If that process or that connection dies then,
// the session is lost, and a [SessionError] says so with Interrupted set, which
// tells it from a theft.
//
// # How it fits
//
//   - [Sessions] are one tenant's sessions, each under a key of your choice: the
//     name of an account, or the ID of a user. [Sessions.Login],
//     [Sessions.Adopt] and [Sessions.Logout] begin and end them.
//   - A [TokenSource] hands out one session's access token, and refreshes it
//     before it expires. It is an oauth2.TokenSource.
//   - A [Transport] is an http.RoundTripper that sends requests with that
//     token, and once more after a 401. [Sessions.Client] is a client over one.
//     With the key "" one client serves every session: [WithSession] says which.
//   - A [Store] keeps the sessions where a restart, or another process, finds
//     them. [MemoryStore] forgets them; [LocalStore] makes one of two functions,
//     for one process; packages filestore, sqlstore and redisstore serve many
//     processes; [Encrypt] encrypts the tokens in any of them.
//
// Call [Sessions.Close] before the process ends, with a context that has time
// left: it waits until every rotated token is saved.
//
// # The rotation protocol
//
// The store offers a compare-and-swap and nothing else. To refresh, a process
//
//  1. loads the record, and is done if somebody else has refreshed;
//  2. stops if the session has ended;
//  3. waits while another process is refreshing, unless that one is gone: its
//     claim has not changed for twice Config.RefreshTimeout;
//  4. claims the refresh, by saving the record with RefreshStarted set;
//  5. presents the refresh token, and saves what came back: the new pair over
//     the claim, however often the store must be asked, or the end of the
//     session if FinCode said so;
//  6. loads the record again wherever the outcome of a save is unknown.
//
// # Where to go next
//
// The examples show many users behind one client, tests with httpmock, other
// middleware, a Store of your own, and how to tell errors apart ([SessionError],
// [EndpointError]). [Event] is for logs and metrics. Package fincodetest is a
// FinCode to test against, and package storetest is what a Store must pass.
package fincodeauth
