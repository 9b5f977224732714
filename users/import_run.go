package users

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// importBatch is how many accounts are read and written together.
	importBatch = 100
	// duplicateKey is the server's code for a unique index that is violated.
	duplicateKey = 11000
)

// importRun is an import under way.
type importRun struct {
	store   *Store
	options ImportOptions
	report  *ImportReport
	// batch are the lines that have not been dealt with.
	batch []*importLine
	// seen are the addresses of a dry run. In any other the index tells which come
	// twice.
	seen map[string]bool
}

// importLine is a line, taken apart.
type importLine struct {
	LineResult
	empty bool
	user  *record // nil when the line is refused or empty
	roles []string
}

// add puts a line into the batch, and deals with the batch when it is full.
func (run *importRun) add(ctx context.Context, x *importLine) error {
	if x.user != nil && run.options.DryRun {
		if run.seen[x.user.EmailNorm] {
			x.Outcome = Existing
		}
		run.seen[x.user.EmailNorm] = true
	}
	run.batch = append(run.batch, x)
	if len(run.batch) < importBatch {
		return nil
	}
	return run.flush(ctx)
}

// flush deals with the batch. It is not interrupted: an import ends between
// batches.
func (run *importRun) flush(ctx context.Context) error {
	if err := run.create(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for _, x := range run.batch {
		run.report.Lines = x.Line
		if x.empty {
			continue
		}
		switch x.Outcome {
		case Imported:
			run.report.Imported++
			if !run.options.DryRun {
				run.store.report(ctx, event.UserImported, event.Success, x.UserID, "")
			}
		case Existing:
			run.report.Existing++
		case Refused:
			run.report.Refused++
			if len(run.report.Errors) < maxLineErrors {
				run.report.Errors = append(run.report.Errors, x.Err)
			}
		}
		if run.options.OnLine != nil {
			run.options.OnLine(x.LineResult)
		}
	}
	run.batch = run.batch[:0]
	return nil
}

// create makes the accounts of the batch whose addresses are free.
func (run *importRun) create(ctx context.Context) error {
	var asked []*importLine
	for _, x := range run.batch {
		if x.user != nil {
			asked = append(asked, x)
		}
	}
	fresh, err := run.absent(ctx, asked)
	if err != nil || len(fresh) == 0 || run.options.DryRun {
		return err
	}
	if err := run.grant(ctx, fresh); err != nil {
		return err
	}
	late, err := run.insert(ctx, fresh)
	if err != nil || len(late) == 0 {
		return err
	}
	for _, x := range late {
		x.Outcome, x.UserID = Existing, ""
	}
	if _, err := run.absent(ctx, late); err != nil {
		return err
	}
	for _, x := range late {
		if x.UserID == x.user.ID {
			// The driver has sent it twice, and the first had arrived.
			x.Outcome = Imported
			continue
		}
		// Somebody was faster. Roles of an id that nobody has do no harm where this
		// fails.
		_ = run.forget(ctx, x.user.ID)
	}
	return nil
}

// absent says of each line whether its address is there, and returns those whose
// is not.
func (run *importRun) absent(ctx context.Context, asked []*importLine) ([]*importLine, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	ids, err := run.store.idsOf(ctx, asked)
	if err != nil {
		return nil, err
	}
	var fresh []*importLine
	for _, x := range asked {
		if id, there := ids[x.user.EmailNorm]; there {
			x.Outcome, x.UserID = Existing, id
			continue
		}
		if x.Outcome == "" {
			x.Outcome = Imported
		}
		fresh = append(fresh, x)
	}
	return fresh, nil
}

func (s *Store) idsOf(ctx context.Context, asked []*importLine) (map[string]string, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	norms := make([]string, len(asked))
	for i, x := range asked {
		norms[i] = x.user.EmailNorm
	}
	cursor, err := s.users.Find(ctx, bson.M{"app": s.config.App, "email_norm": bson.M{"$in": norms, "$gt": ""}},
		options.Find().SetProjection(bson.M{"email_norm": 1}))
	if err != nil {
		return nil, store.Error("look for the users of the import", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("look for the users of the import", err)
	}
	ids := make(map[string]string, len(found))
	for i := range found {
		ids[found[i].EmailNorm] = found[i].ID
	}
	return ids, nil
}

func (run *importRun) grant(ctx context.Context, fresh []*importLine) error {
	if run.options.Roles != nil {
		grants := make([]Grant, len(fresh))
		for i, x := range fresh {
			grants[i] = Grant{UserID: x.user.ID, EmailNorm: x.user.EmailNorm, Trusted: x.user.EmailVerified, Roles: x.roles}
		}
		return run.options.Roles.GrantRoles(ctx, grants)
	}
	if run.store.config.Roles == nil {
		return nil
	}
	for _, x := range fresh {
		if err := run.store.config.Roles.Welcome(ctx, x.user.ID, x.user.EmailNorm, x.user.EmailVerified); err != nil {
			return err
		}
	}
	return nil
}

func (run *importRun) forget(ctx context.Context, id string) error {
	switch {
	case run.options.Roles != nil:
		return run.options.Roles.Forget(ctx, id)
	case run.store.config.Roles != nil:
		return run.store.config.Roles.Forget(ctx, id)
	default:
		return nil
	}
}

// insert stores the accounts and returns those whose address was taken meanwhile:
// the index decides.
func (run *importRun) insert(ctx context.Context, fresh []*importLine) (late []*importLine, err error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	docs := make([]any, len(fresh))
	for i, x := range fresh {
		docs[i], x.UserID = x.user, x.user.ID
	}
	_, err = run.store.users.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	var bulk mongo.BulkWriteException
	switch {
	case !errors.As(err, &bulk):
		return nil, store.Error("import users", err)
	case bulk.WriteConcernError != nil:
		// Without the duplicates beside it: their messages hold addresses.
		return nil, store.Error("import users", mongo.WriteException{WriteConcernError: bulk.WriteConcernError})
	}
	for _, w := range bulk.WriteErrors {
		if w.Code != duplicateKey || w.Index >= len(fresh) {
			return nil, store.Error("import users", w)
		}
		late = append(late, fresh[w.Index])
	}
	return late, nil
}
