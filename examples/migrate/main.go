// Command migrate moves the users of an app of mdb-engine 0.1 into an app of Mandate.
// People keep their passwords and sign in again: sessions are not moved.
//
// Without MONGODB_URI it shows itself: it starts localmongo, puts a small old
// database into it, moves that, and signs somebody in. With MONGODB_URI:
//
//	migrate -from old -app shop -export > users.jsonl
//	migrate -from old -app shop -to shop_mandate -manifest manifest.json -dry-run
//	migrate -from old -app shop -to shop_mandate -manifest manifest.json -map ids.jsonl
//
// It reads the old database and writes nothing there. It can be repeated: who has been
// moved is left alone. README.md says more.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		log.Fatal(err)
	}
}

// settings are what the command line says.
type settings struct {
	old, app, users, to, manifest, ids string
	trustEmails, export, dryRun        bool
}

func run(ctx context.Context, args []string, out, notes io.Writer) error {
	var s settings
	f := flag.NewFlagSet("migrate", flag.ContinueOnError)
	f.SetOutput(notes)
	f.StringVar(&s.old, "from", "", "the old database")
	f.StringVar(&s.app, "app", "", "the slug of the app in it")
	f.StringVar(&s.users, "users", "", "the collection of its users (default <app>_users)")
	f.StringVar(&s.to, "to", "", "the database of Mandate, another one")
	f.StringVar(&s.manifest, "manifest", "", "the manifest of the app of Mandate")
	f.StringVar(&s.ids, "map", "", "a file for the old and the new id of each user, as JSON lines")
	f.BoolVar(&s.trustEmails, "trust-emails", false, "vouch for the addresses: they count as verified")
	f.BoolVar(&s.export, "export", false, "write the users as JSON lines, and move nothing")
	f.BoolVar(&s.dryRun, "dry-run", false, "judge every user, and move nothing")
	if err := f.Parse(args); err != nil {
		return err
	}
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		return show(ctx, out)
	}
	if s.old == "" || s.app == "" || (!s.export && (s.to == "" || s.manifest == "")) {
		return errors.New("say -from and -app, and either -export or -to and -manifest")
	}
	if s.old == s.to {
		return errors.New("-to must be another database: collections of both have the same names")
	}
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	from := &old{db: client.Database(s.old), slug: s.app, users: s.users, trustEmails: s.trustEmails}
	if from.users == "" {
		from.users = s.app + "_users"
	}
	if s.export {
		behind, err := from.export(ctx, out)
		fmt.Fprintf(notes, "left behind: %d guests, %d demo users\n", behind.Guests, behind.Demo)
		return err
	}
	return into(ctx, from, client.Database(s.to), &s, out)
}

// into moves the users into the app of the manifest.
func into(ctx context.Context, from *old, db *mongo.Database, s *settings, out io.Writer) (err error) {
	eng, err := engine.New(ctx, db, nil)
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	app, err := eng.LoadFile(ctx, s.manifest)
	if err != nil {
		return err
	}
	o := users.ImportOptions{DryRun: s.dryRun}
	if s.ids != "" {
		file, err := os.OpenFile(s.ids, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		ids := bufio.NewWriter(file)
		defer func() { err = errors.Join(err, ids.Flush(), file.Close()) }()
		o.OnLine = func(r users.LineResult) {
			if r.UserID != "" {
				_ = json.NewEncoder(ids).Encode(map[string]string{"old": r.ExternalID, "new": r.UserID})
			}
		}
	}
	return move(ctx, from, app, o, out)
}

// move imports what export writes, and says what came of it.
func move(ctx context.Context, from *old, app *engine.App, o users.ImportOptions, out io.Writer) error {
	lines, writer := io.Pipe()
	var behind left
	exported := make(chan error, 1)
	go func() {
		var err error
		behind, err = from.export(ctx, writer)
		writer.CloseWithError(err)
		exported <- err
	}()
	var refused []string
	onLine := o.OnLine
	o.OnLine = func(r users.LineResult) {
		if r.Err != nil {
			refused = append(refused, fmt.Sprintf("  id %s: %v", r.ExternalID, r.Err))
		}
		if onLine != nil {
			onLine(r)
		}
	}
	report, err := app.ImportUsers(ctx, lines, o)
	_ = lines.CloseWithError(io.ErrClosedPipe) // ends an export that nobody reads any more
	<-exported
	imported := "imported"
	if o.DryRun {
		imported = "would be imported"
	}
	fmt.Fprintf(out, "%d %s, %d there already, %d refused; left behind: %d guests, %d demo users\n",
		report.Imported, imported, report.Existing, report.Refused, behind.Guests, behind.Demo)
	for _, line := range refused {
		fmt.Fprintln(out, line)
	}
	if err == nil && report.Lines == 0 && behind == (left{}) {
		fmt.Fprintf(out, "nobody was found: the old database has no users whose app_id is %q\n", from.slug)
	}
	if err != nil {
		return fmt.Errorf("run it again, it goes on where it was: %w", err)
	}
	p, err := from.policies(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "rules for auth.policy.authorization.initial_policies of the manifest:")
	if err := list(out, p.forManifest); err != nil {
		return err
	}
	if len(p.denied) > 0 {
		fmt.Fprintln(out, "rules that DENY, and need a model that knows that; initial_policies would allow it:")
		if err := list(out, p.denied); err != nil {
			return err
		}
	}
	if p.people > 0 {
		fmt.Fprintf(out, "%d rules are about single people: write them anew with Authz().AddRules and the new ids\n", p.people)
	}
	return nil
}

func list(out io.Writer, rules [][]string) error {
	for _, r := range rules {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %s\n", text)
	}
	return nil
}
