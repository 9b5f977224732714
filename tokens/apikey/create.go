package apikey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// maxName bounds the name of a key, in characters.
const maxName = 64

// NewKey is a wish for a key.
type NewKey struct {
	// UserID is the owner. It comes from who asks and never from what is asked.
	UserID string
	// Name is what the owner calls the key: 1 to 64 characters.
	Name string
	// Scopes are what the key may do at most. A key without any says who its owner is
	// and nothing else.
	Scopes []string
	// TTL is the key's life. Zero means Config.DefaultTTL.
	TTL time.Duration
}

// Created is a new key.
type Created struct {
	// Key is the key itself. It is not stored and cannot be shown again.
	Key string
	APIKey
}

// Create makes a key. The error is an [authz.ValueError] for a field that is wrong,
// [ErrOwner], [ErrScope] or [ErrLimit]; or that of Config.Rights.
//
// A call whose outcome is open takes the key away again as far as it can. What it
// had to leave behind is in the owner's list, and nobody knows its secret.
func (s *Store) Create(ctx context.Context, n NewKey) (*Created, error) {
	ttl, err := s.checkNew(&n)
	if err != nil {
		return nil, err
	}
	if err := s.mayGive(ctx, &n); err != nil {
		return nil, err
	}
	text := newKey(s.lead)
	now := store.Time(s.config.Now())
	r := &record{
		App: s.config.App, Hash: digestOf(text).stored(),
		APIKey: APIKey{
			ID: store.NewID(idPrefix), Owner: n.UserID, Name: n.Name, Prefix: s.config.Prefix,
			Hint: text[len(s.lead):][:hintLength], Scopes: n.Scopes, CreatedAt: now,
		},
	}
	if ttl > 0 {
		r.ExpiresAt = store.Time(now.Add(ttl))
		r.PurgeAt = r.ExpiresAt.Add(Kept)
	}
	// From here on the outcome is written: a client that goes away must not leave a
	// key behind that nobody knows.
	ctx = context.WithoutCancel(ctx)
	if err := s.admit(ctx, r); err != nil {
		return nil, err
	}
	s.report(ctx, event.APIKeyCreated, r.Owner, r.ID, "")
	return &Created{Key: text, APIKey: r.APIKey}, nil
}

// checkNew checks the fields, brings the scopes into their normal form and returns
// the key's life, 0 for one without end.
func (s *Store) checkNew(n *NewKey) (time.Duration, error) {
	fault := func(field, format string, args ...any) error {
		return &authz.ValueError{Field: field, Message: fmt.Sprintf(format, args...)}
	}
	ttl := n.TTL
	if ttl == 0 {
		ttl = s.config.DefaultTTL
	}
	switch count := utf8.RuneCountInString(n.Name); {
	case !utf8.ValidString(n.Name) || strings.IndexFunc(n.Name, unicode.IsControl) >= 0:
		return 0, fault("name", "must be UTF-8 without control characters")
	case strings.TrimSpace(n.Name) != n.Name || count < 1 || count > maxName:
		return 0, fault("name", "must have 1 to %d characters and no space at its ends", maxName)
	case ttl < 0:
		return 0, fault("ttl", "must not be negative")
	case s.config.MaxTTL > 0 && ttl > s.config.MaxTTL:
		return 0, fault("ttl", "must not be over %s", s.config.MaxTTL)
	case len(n.Scopes) > authz.MaxScopes:
		return 0, fault("scopes", "must be %d at most", authz.MaxScopes)
	}
	n.Scopes = slices.Clone(n.Scopes)
	slices.Sort(n.Scopes)
	n.Scopes = slices.Compact(n.Scopes)
	for _, scope := range n.Scopes {
		if err := authz.CheckScope(scope); err != nil {
			return 0, err
		}
	}
	return ttl, nil
}

// mayGive makes sure that the owner may have a key with these scopes.
func (s *Store) mayGive(ctx context.Context, n *NewKey) error {
	kind, err := s.config.Accounts.Active(ctx, n.UserID)
	switch {
	case errors.Is(err, ErrGone):
		return fmt.Errorf("%w: %w", ErrOwner, err)
	case err != nil:
		return err
	case !mayOwn(kind):
		return fmt.Errorf("%w: it is of the kind %q", ErrOwner, kind)
	}
	for _, scope := range n.Scopes {
		if may, err := s.allows(ctx, n.UserID, scope); err != nil {
			return err
		} else if !may {
			return fmt.Errorf("%w: %q", ErrScope, scope)
		}
	}
	return nil
}

// mayOwn reports whether an account of the kind may have keys. A guest is
// [authz.SubjectAnonymous] to the rules and its key would be its id: what is denied
// to guests would be allowed to their keys.
func mayOwn(kind authz.Kind) bool {
	return kind == authz.KindHuman || kind == authz.KindDemo
}

// admit stores the key in a slot of its owner that is free. What was read about the
// slots is a hint: the unique index decides.
func (s *Store) admit(ctx context.Context, r *record) error {
	for released := false; ; released = true {
		taken, err := s.slots(ctx, r.Owner)
		if err != nil {
			return err
		}
		for _, slot := range free(taken, s.config.MaxPerUser) {
			r.Slot = &slot
			if err := s.insert(ctx, r); !errors.Is(err, store.ErrDuplicate) {
				return err
			}
		}
		if released {
			return fmt.Errorf("%w: %d keys; revoke one first", ErrLimit, s.config.MaxPerUser)
		}
		if err := s.release(ctx, r.Owner); err != nil {
			return err
		}
	}
}

// free returns the slots that a new key may try, given those that are taken.
//
// It is all below limit that are not taken, unless keys hold slots from above: the
// limit was higher when they were made. Each of them closes one slot from the top,
// so that open slots and keys above them are never more than limit. Keys are made
// in open slots only and what lies above can only become fewer, so this holds
// whatever others do at the same time.
func free(taken []int, limit int) []int {
	open := limit
	for above(taken, open)+open > limit {
		open--
	}
	out := make([]int, 0, max(0, open))
	for slot := range open {
		if !slices.Contains(taken, slot) {
			out = append(out, slot)
		}
	}
	return out
}

func above(taken []int, open int) (n int) {
	for _, slot := range taken {
		if slot >= open {
			n++
		}
	}
	return n
}

// held are the conditions for a key that holds a slot.
var held = bson.E{Key: "slot", Value: bson.D{{Key: "$gte", Value: 0}}}

func (s *Store) slots(ctx context.Context, owner string) ([]int, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := s.coll.Find(ctx, s.own(owner, held), options.Find().
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "slot", Value: 1}}))
	if err != nil {
		return nil, store.Error("read the slots of API keys", err)
	}
	var found []struct {
		Slot int `bson:"slot"`
	}
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("read the slots of API keys", err)
	}
	taken := make([]int, len(found))
	for i, f := range found {
		taken[i] = f.Slot
	}
	return taken, nil
}

// release takes the slots from keys that have expired: they neither live nor count.
func (s *Store) release(ctx context.Context, owner string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.UpdateMany(ctx,
		s.own(owner, held, bson.E{Key: "expires_at", Value: bson.D{{Key: "$lte", Value: s.config.Now()}}}),
		bson.D{{Key: "$unset", Value: bson.D{{Key: "slot", Value: ""}}}})
	return store.Error("release the slots of expired API keys", err)
}

func (s *Store) insert(ctx context.Context, r *record) error {
	bounded, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.InsertOne(bounded, r)
	err = store.Error("store the API key", err)
	if errors.Is(err, store.ErrUnavailable) {
		s.discard(ctx, r)
	}
	return err
}

// discard takes away a key whose insertion was not answered: its secret is lost.
func (s *Store) discard(ctx context.Context, r *record) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, _ = s.coll.DeleteOne(ctx, s.own(r.Owner, bson.E{Key: "_id", Value: r.ID}))
}

// allows reports whether a key of the user may have the scope: the app gives it to
// keys, and the user may do what it stands for.
func (s *Store) allows(ctx context.Context, userID, scope string) (bool, error) {
	if s.config.AllowedScopes != nil && !slices.Contains(s.config.AllowedScopes, scope) {
		return false, nil
	}
	may, err := s.config.Rights(ctx, userID, scope)
	return may && err == nil, err
}

// left returns those of a key's scopes that it may still have: the owner, or what
// the app gives to keys, may have less than when it was made.
func (s *Store) left(ctx context.Context, userID string, scopes []string) ([]string, error) {
	var out []string
	for _, scope := range scopes {
		may, err := s.allows(ctx, userID, scope)
		if err != nil {
			return nil, err
		}
		if may {
			out = append(out, scope)
		}
	}
	return out, nil
}
