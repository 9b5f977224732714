package signing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

const (
	// maxDocuments bounds what is read of one app. A day of tokens under keys that
	// are replaced every quarter of an hour is a hundred.
	maxDocuments = 1000
	// maxTries bounds how often a lost race is tried again. One loss is usual: the
	// winner's key is there then.
	maxTries = 5
)

// opened is a key that has been checked, and what it was made from.
type opened struct {
	private, public string
	key             tokens.SigningKey
}

// Load reads the keys and makes them the current set. Where there is none it makes
// the first, where one is due it makes the next, and it removes the dead. It reads
// one small collection by an index: call it at the start and then about once a
// minute.
//
// When it fails the set stays as it was. [ErrUnusable] says that somebody has to
// decide about a key; [store.ErrUnavailable] passes.
func (s *Store) Load(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.load(ctx)
}

func (s *Store) load(ctx context.Context) error {
	for range maxTries {
		p, err := s.read(ctx)
		if err != nil {
			return err
		}
		// What is there counts, also where nothing can be written now.
		if err := s.install(ctx, p); err != nil {
			return err
		}
		why, from := s.due(p)
		if why == "" {
			return s.settle(ctx, p)
		}
		if _, err := s.create(ctx, p, why, from); err != nil && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
	}
	return errRace
}

var errRace = fmt.Errorf("signing keys: other instances were faster %d times in a row; try again: %w", maxTries, store.ErrUnavailable)

// read returns what is stored.
func (s *Store) read(ctx context.Context) (*plan, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	const op = "read the signing keys"
	now := s.config.Now()
	cursor, err := s.coll.Find(ctx, bson.M{"app": s.config.App}, options.Find().SetLimit(maxDocuments+1))
	if err != nil {
		return nil, store.Error(op, err)
	}
	var docs []record
	if err := cursor.All(ctx, &docs); err != nil {
		return nil, store.Error(op, err)
	}
	if len(docs) > maxDocuments {
		return nil, fmt.Errorf("%s: collection %s holds more than %d of app %q; remove those that no instance made", op, Collection, maxDocuments, s.config.App)
	}
	return newPlan(&s.config, docs, now), nil
}

// warn logs, once, that there are documents that are none of the app's keys.
func (s *Store) warn(ctx context.Context, p *plan) {
	if len(p.foreign) != s.foreign && len(p.foreign) > 0 {
		s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "signing keys that are not this app's are ignored; remove the documents",
			slog.String("app", s.config.App), slog.String("collection", Collection), slog.Any("ids", p.foreign[:min(len(p.foreign), 5)]))
	}
	s.foreign = len(p.foreign)
}

// Why a key was made or ended, as in events.
const (
	whyFirst    = "first"
	whySchedule = "schedule"
	whySecret   = "secret_changed"
	whyCommand  = "command"
	whyRevoked  = "revoked"
)

// due returns why a key has to be made, empty if none has, and when it begins to
// sign.
func (s *Store) due(p *plan) (why string, from time.Time) {
	if p.signing == nil {
		return whyFirst, p.now
	}
	if p.next != nil || p.signing.ActiveFrom.After(p.now) {
		return "", time.Time{}
	}
	from = p.now.Add(s.config.Lead)
	// A secret key that is on its way out takes with it what was sealed under it.
	if s.config.Keys.Outdated(p.signing.Private) {
		return whySecret, from
	}
	if s.config.Rotation == 0 {
		return "", time.Time{}
	}
	end := p.signing.ActiveFrom.Add(s.config.Rotation)
	if from.Before(end) {
		return "", time.Time{}
	}
	return whySchedule, from
}

// create makes the key after the last one. It fails with [store.ErrDuplicate] when
// another instance has made it.
func (s *Store) create(ctx context.Context, p *plan, why string, from time.Time) (*record, error) {
	if id := kid(s.config.Salt, s.config.App, s.config.Algorithm, p.epoch, p.last()+1); slices.Contains(p.foreign, id) {
		return nil, fmt.Errorf("%w: %s of collection %s has been altered, and a new key needs its place; restore the document from a backup or remove it",
			ErrUnusable, id, Collection)
	}
	r, err := newRecord(&s.config, p.epoch, p.last()+1)
	if err != nil {
		return nil, err
	}
	r.CreatedAt, r.ActiveFrom = store.Time(p.now), store.Time(from)
	call, cancel := store.Context(ctx)
	defer cancel()
	if _, err := s.coll.InsertOne(call, r); err != nil {
		return nil, store.Error("store a signing key", err)
	}
	s.report(ctx, event.SigningKeyCreated, r, why)
	if !from.After(p.now) {
		s.report(ctx, event.SigningKeyActivated, r, why)
	}
	return r, nil
}

// install makes the plan the current set, or nothing if a key of it cannot be used.
func (s *Store) install(ctx context.Context, p *plan) error {
	s.warn(ctx, p)
	records := p.accepted()
	now := make(map[string]opened, len(records))
	set := &Set{LoadedAt: p.now, Accepted: make([]tokens.SigningKey, 0, len(records)), known: make(map[string]bool, len(p.keys)), epoch: p.epoch, last: p.last()}
	for _, r := range records {
		key, err := s.openOnce(r)
		if err != nil {
			return err
		}
		now[r.ID] = opened{private: r.Private, public: string(r.Public), key: key}
		if r != p.signing {
			key.Private = nil
		}
		set.Accepted = append(set.Accepted, key)
	}
	if p.signing != nil {
		set.Signing = set.Accepted[0]
	}
	for _, r := range p.keys {
		set.known[r.ID] = true
	}
	var err error
	if set.jwks, err = newKeySet(set.Accepted); err != nil {
		return err
	}
	s.opened = now
	s.replace(set)
	return nil
}

// openOnce opens the record unless the last set holds the same key: to check an RSA
// key costs more than all the rest.
func (s *Store) openOnce(r *record) (tokens.SigningKey, error) {
	if o, ok := s.opened[r.ID]; ok && o.private == r.Private && o.public == string(r.Public) && o.key.Algorithm == r.Algorithm {
		return o.key, nil
	}
	return r.open(s.config.Keys)
}

// replace makes set the current one.
func (s *Store) replace(set *Set) {
	old := s.set.Swap(set)
	same := old.jwks.etag == set.jwks.etag && (old.Signing.Private == nil) == (set.Signing.Private == nil)
	if s.config.OnChange != nil && !same {
		s.config.OnChange(*set)
	}
	s.given.Store(set)
}

// settle writes down what the plan has found: that keys have stopped to sign, and
// how long their tokens live. It removes what is dead.
func (s *Store) settle(ctx context.Context, p *plan) error {
	dead, told := false, false
	for _, r := range p.keys {
		dead = dead || p.forgotten(r)
		if !r.RevokedAt.IsZero() {
			continue
		}
		if r.maySign() && r.TokenLife < p.ttl.Milliseconds() {
			if _, err := s.update(ctx, r.ID, nil, bson.M{"$max": bson.M{"token_life": p.ttl.Milliseconds()}}); err != nil {
				return err
			}
		}
		at := store.Time(p.retireAt(r))
		if r == p.signing || !at.After(r.RetireAt) {
			continue
		}
		first, err := s.retire(ctx, r, at)
		if err != nil {
			return err
		}
		if first {
			s.reportTakeover(ctx, p, r, told)
			told = true
		}
	}
	if !dead && !p.outlived {
		return nil
	}
	return s.clean(ctx, p)
}

// retire notes until when the key is needed, and reports whether this was the
// first time.
func (s *Store) retire(ctx context.Context, r *record, at time.Time) (first bool, err error) {
	if !r.RetireAt.IsZero() {
		_, err := s.update(ctx, r.ID, nil, bson.M{"$max": bson.M{"retire_at": at}})
		return false, err
	}
	return s.update(ctx, r.ID, bson.M{"retire_at": bson.M{"$exists": false}}, bson.M{"$set": bson.M{"retire_at": at}})
}

// reportTakeover reports that old has stopped to sign, and once that its successor
// began, unless that was known when it was made.
func (s *Store) reportTakeover(ctx context.Context, p *plan, old *record, told bool) {
	if !told && !p.signing.CreatedAt.Equal(p.signing.ActiveFrom) {
		s.report(ctx, event.SigningKeyActivated, p.signing, "")
	}
	s.report(ctx, event.SigningKeyRetired, old, "")
}

// update changes one key of the app, and reports whether the further condition
// held.
func (s *Store) update(ctx context.Context, id string, further, change bson.M) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	filter := bson.M{"_id": id, "app": s.config.App}
	for k, v := range further {
		filter[k] = v
	}
	res, err := s.coll.UpdateOne(ctx, filter, change)
	if err != nil {
		return false, store.Error("update a signing key", err)
	}
	return res.MatchedCount == 1, nil
}

// forgotten reports whether r can be removed. A number must not be given twice, so
// none goes that a later key does not stand above.
func (p *plan) forgotten(r *record) bool {
	return p.signing != nil && r.N < p.signing.N && !r.RetireAt.IsZero() && r.RetireAt.Before(p.now.Add(-margin))
}

// clean removes the dead: a private key that nobody needs is only a danger.
func (s *Store) clean(ctx context.Context, p *plan) error {
	for _, filter := range []bson.M{
		{
			"app": s.config.App, "retire_at": bson.M{"$lt": store.Time(p.now.Add(-margin))},
			"algorithm": s.config.Algorithm, "keys_epoch": p.epoch, "n": bson.M{"$lt": p.signing.N},
		},
		{"app": s.config.App, "keys_epoch": bson.M{"$lt": p.epoch}},
	} {
		call, cancel := store.Context(ctx)
		_, err := s.coll.DeleteMany(call, filter)
		cancel()
		if err != nil {
			return store.Error("remove dead signing keys", err)
		}
	}
	return nil
}

// report emits an event about the key.
func (s *Store) report(ctx context.Context, kind event.Type, r *record, why string) {
	s.config.Events.Record(ctx, event.Event{
		Type: kind, Result: event.Success, App: s.config.App, Time: s.config.Now(), Reason: why, Request: event.RequestFrom(ctx),
		Metadata: map[string]string{"kid": r.ID, "algorithm": r.Algorithm},
	})
}
