package engine_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing/fstest"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
)

// What stands in docs/sign-in.md and docs/coming-from-mdb-engine.md and, of mails that
// wait, in docs/operations.md, word for word: a test of internal/docscheck compares them.

// docsProvider is a provider of OAuth 2.0 that lets Ada in with any code.
func docsProvider() *httptest.Server {
	answer := func(w http.ResponseWriter, text string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"access_token":"opens-the-calendar","token_type":"Bearer","expires_in":3600}`)
	})
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"id":42,"name":"Ada","contact":{"address":"ada@example.com","verified":true}}`)
	})
	return httptest.NewServer(mux)
}

// docsManifest is that of an app with the provider.
func docsManifest(provider string) string {
	return fmt.Sprintf(`{"slug":"shop","public_url":"https://shop.example","auth":{"oauth":{"providers":{"forum":{
		"authorization_endpoint":"%[1]s/authorize","token_endpoint":"%[1]s/token","userinfo_endpoint":"%[1]s/user",
		"claims":{"subject":"id","email":"contact.address","email_verified":"contact.verified","name":"name"},
		"client_id":"shop","client_secret":"a secret of the provider","keep_tokens":true}}}}}`, provider)
}

const begun = "__Host-shop_begun_"

// begin sends the browser to the provider.
func begin(w http.ResponseWriter, r *http.Request, app *engine.App) {
	flow, err := app.Social().Begin(r.Context(), "forum", social.BeginOptions{Next: r.URL.Query().Get("next")})
	if err != nil {
		http.Error(w, "try again", engine.AsProblem(err).Status)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: begun + flow.ID, Value: flow.Cookie, Path: "/", Expires: flow.ExpiresAt, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, r, flow.URL, http.StatusSeeOther)
}

// finish begins the session of who comes back. The token is the client's, here.
func finish(w http.ResponseWriter, r *http.Request, app *engine.App) {
	query, kept := r.URL.Query(), ""
	if c, err := r.Cookie(begun + social.CookieSuffix(query)); err == nil {
		kept = c.Value
	}
	who, err := app.Social().Finish(r.Context(), "forum", query, kept)
	if err != nil {
		http.Error(w, "try again", engine.AsProblem(err).Status)
		return
	}
	tokens, err := social.MarshalTokens(who.Tokens) // nothing without keep_tokens
	if err != nil {
		http.Error(w, "try again", http.StatusInternalServerError)
		return
	}
	grant, err := app.Arrive(r.Context(), identity.Arrival{
		Provider: who.Provider, Issuer: who.Issuer, Subject: who.Info.Subject,
		Email: who.Info.Email, EmailVerified: who.Info.EmailVerified,
		Profile: map[string]any{"name": who.Info.Name}, Tokens: tokens,
	}, engine.Device{UserAgent: r.UserAgent()}, false)
	if err != nil {
		http.Error(w, engine.AsProblem(err).Detail, engine.AsProblem(err).Status)
		return
	}
	fmt.Fprintln(w, grant.Access.Token)
}

// tokenOf returns what calls the provider's API in the name of the person.
func tokenOf(ctx context.Context, app *engine.App, userID string) (string, error) {
	list, err := app.Identities().List(ctx, userID)
	if err != nil || len(list) == 0 {
		return "", errors.Join(err, identity.ErrNoTokens)
	}
	raw, err := app.Identities().Tokens(ctx, userID, list[0].Provider, list[0].Subject)
	if err != nil {
		return "", err // users.ErrNotFound, identity.ErrNoTokens
	}
	kept, err := social.ParseTokens(raw)
	if err != nil {
		return "", err
	}
	return string(kept.AccessToken.Reveal()), nil // until kept.Expiry
}

func ExampleApp_Social() {
	provider := docsProvider()
	defer provider.Close()
	app, closeAll := docsApp(docsManifest(provider.URL))
	defer closeAll()

	gone := httptest.NewRecorder()
	begin(gone, httptest.NewRequest(http.MethodGet, "/forum/login?next=/cart", nil), app)
	to, err := url.Parse(gone.Header().Get("Location"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(gone.Code, to.Path, to.Query().Get("redirect_uri"))

	back := httptest.NewRequest(http.MethodGet, "/auth/oauth/forum/callback?code=any&state="+to.Query().Get("state"), nil)
	back.AddCookie(gone.Result().Cookies()[0])
	in := httptest.NewRecorder()
	finish(in, back, app)
	p, err := app.Verify(context.Background(), strings.TrimSpace(in.Body.String()))
	if err != nil {
		log.Fatal(err)
	}
	user, err := app.Users().Get(context.Background(), p.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(user.Email, user.EmailVerified, user.Profile["name"])
	fmt.Println(tokenOf(context.Background(), app, p.ID))

	again := httptest.NewRecorder()
	finish(again, back, app)
	fmt.Println(again.Code)
	// Output:
	// 303 /authorize https://shop.example/auth/oauth/forum/callback
	// ada@example.com true Ada
	// opens-the-calendar <nil>
	// 400
}

// docsPost prints what is mailed.
type docsPost chan string

func (p docsPost) Send(_ context.Context, m *mail.Message) error {
	p <- m.Subject + " to " + m.To
	return nil
}

// ask does by itself what routes do otherwise.
func ask(ctx context.Context, app *engine.App) error {
	from := recovery.From{Language: "de"}
	return errors.Join(
		app.Recovery().SendVerification(ctx, "ada@example.com", from),
		app.Recovery().ForgotPassword(ctx, "nobody@example.com", from)) // nil as well: nobody is told
}

// invite invites in the name of the service.
func invite(ctx context.Context, app *engine.App, email string) (*invitation.Invitation, error) {
	return app.Invitations().Create(ctx, invitation.NewInvitation{Email: email, Role: "user", InvitedBy: "back office"})
}

// mailsWait reports whether mails wait for somebody to send them.
func mailsWait(ctx context.Context, app *engine.App) (bool, error) {
	waiting, err := app.Outbox().Pending(ctx)
	return waiting.Overdue > 2*time.Minute, err // Jobs and Retried say how many
}

func ExampleApp_Invitations() {
	post := docsPost(make(chan string, 10))
	app, closeAll := docsApp(`{"slug":"shop","name":"Shop","public_url":"https://shop.example","auth":{"mail":{"from":"no-reply@shop.example"}}}`,
		func(o *engine.Options) { o.Mailer = post })
	defer closeAll()
	ctx := context.Background()
	if _, err := app.Users().Register(ctx, users.NewUser{Email: email, Password: password}); err != nil {
		log.Fatal(err)
	}

	if err := ask(ctx, app); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-post)
	made, err := invite(ctx, app, "bob@example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.State, <-post)
	fmt.Println(mailsWait(ctx, app))
	// Output:
	// Bestätigen Sie Ihre E-Mail-Adresse für Shop to ada@example.com
	// pending You are invited to Shop to bob@example.com
	// false <nil>
}

// mailOptions are what the manifest cannot say.
func mailOptions(opts *engine.Options, mailer mail.Mailer, overlay fs.FS, private *tls.Config) {
	opts.Mailer = mailer         // in the place of auth.mail.smtp, for every app
	opts.MailTemplates = overlay // texts of your own, see mail.md
	opts.MailTLS = private       // the certificates of a private authority, for auth.mail.smtp
}

func guestOptions(opts *engine.Options, moveCart func(ctx context.Context, from, to string) error) {
	opts.GuestSignedIn = func(ctx context.Context, app, guestID, userID string) error {
		return moveCart(ctx, guestID, userID) // an error refuses the sign-in, 409
	}
}

func ExampleOptions_guestSignedIn() {
	moved := ""
	app, closeAll := docsApp(`{"slug":"shop","auth":{"users":{"allow_anonymous_users":true}}}`, func(o *engine.Options) {
		mailOptions(o, docsPost(nil), fstest.MapFS{}, nil)
		guestOptions(o, func(_ context.Context, from, to string) error { moved = from + " " + to; return nil })
	})
	defer closeAll()
	userID, _ := docsUser(app)
	guest, err := app.Users().Anonymous(context.Background(), users.NewDeviceID())
	if err != nil {
		log.Fatal(err)
	}
	grant, err := app.StartSession(context.Background(), guest.ID, engine.Device{}, false)
	if err != nil {
		log.Fatal(err)
	}

	r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+grant.Access.Token)
	w := httptest.NewRecorder()
	app.Handler().ServeHTTP(w, r)
	fmt.Println(w.Code, moved == guest.ID+" "+userID, strings.Contains(w.Body.String(), `"previous_guest":"`+guest.ID))
	// Output: 200 true true
}

// importAccounts is the block of docs/coming-from-mdb-engine.md.
func importAccounts(ctx context.Context, app *engine.App, file io.Reader) (*users.ImportReport, error) {
	report, err := app.ImportUsers(ctx, file, users.ImportOptions{OnLine: func(r users.LineResult) {
		// r.ExternalID is the old id, r.UserID the new one.
	}})
	return report, err
}

func ExampleApp_ImportUsers_options() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	report, err := importAccounts(context.Background(), app, strings.NewReader(`{"email": "ada@example.com", "external_id": "42"}`))
	fmt.Println(report.Imported, report.Refused, err)
	// Output: 1 0 <nil>
}
