package localmongo

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

// helloFields are what drivers tell of themselves: nothing of it matters here.
var helloFields = []string{
	"helloOk", "client", "compression", "speculativeAuthenticate", "topologyVersion", "maxAwaitTimeMS",
	"loadBalanced", "saslSupportedMechs", "backpressure",
}

// commandTable is everything this server understands.
var commandTable = map[string]command{
	"hello":           {runHello, helloFields},
	"isMaster":        {runHello, helloFields},
	"ismaster":        {runHello, helloFields},
	"ping":            {runPing, nil},
	"buildInfo":       {runBuildInfo, nil},
	"buildinfo":       {runBuildInfo, nil},
	"endSessions":     {runPing, nil},
	"insert":          {runInsert, []string{"documents", "ordered"}},
	"update":          {runUpdate, []string{"updates", "ordered"}},
	"delete":          {runDelete, []string{"deletes", "ordered"}},
	"findAndModify":   {runFindAndModify, []string{"query", "sort", "remove", "update", "new", "fields", "upsert", "arrayFilters"}},
	"findandmodify":   {runFindAndModify, []string{"query", "sort", "remove", "update", "new", "fields", "upsert", "arrayFilters"}},
	"find":            {runFind, []string{"filter", "sort", "projection", "skip", "limit", "batchSize", "singleBatch", "allowDiskUse", "noCursorTimeout"}},
	"count":           {runCount, []string{"query", "skip", "limit"}},
	"distinct":        {runDistinct, []string{"key", "query"}},
	"aggregate":       {runAggregate, []string{"pipeline", "cursor", "allowDiskUse"}},
	"getMore":         {runGetMore, []string{"collection", "batchSize"}},
	"killCursors":     {runKillCursors, []string{"cursors"}},
	"create":          {runCreate, nil},
	"drop":            {runDrop, nil},
	"dropDatabase":    {runDropDatabase, nil},
	"createIndexes":   {runCreateIndexes, []string{"indexes", "commitQuorum"}},
	"listIndexes":     {runListIndexes, []string{"cursor"}},
	"dropIndexes":     {runDropIndexes, []string{"index"}},
	"listCollections": {runListCollections, []string{"filter", "nameOnly", "authorizedCollections", "cursor"}},
	"listDatabases":   {runListDatabases, []string{"filter", "nameOnly", "authorizedDatabases"}},
}

func runHello(c *session, a *args) (bson.D, error) {
	out := bson.D{
		{Key: "helloOk", Value: true},
		{Key: "isWritablePrimary", Value: true},
		{Key: "ismaster", Value: true},
		{Key: "maxBsonObjectSize", Value: int32(maxDocument)},
		{Key: "maxMessageSizeBytes", Value: int32(maxMessage)},
		{Key: "maxWriteBatchSize", Value: int32(maxBatch)},
		{Key: "localTime", Value: primitive.NewDateTimeFromTime(time.Now())},
		{Key: "logicalSessionTimeoutMinutes", Value: int32(30)},
		{Key: "connectionId", Value: c.id},
		{Key: "minWireVersion", Value: int32(0)},
		{Key: "maxWireVersion", Value: int32(17)},
		{Key: "readOnly", Value: false},
	}
	return out, nil
}

func runPing(*session, *args) (bson.D, error) { return bson.D{}, nil }

func runBuildInfo(*session, *args) (bson.D, error) {
	return bson.D{
		{Key: "version", Value: "6.0.0"},
		{Key: "versionArray", Value: bson.A{int32(6), int32(0), int32(0), int32(0)}},
		{Key: "gitVersion", Value: "localmongo"},
		{Key: "modules", Value: bson.A{}},
		{Key: "maxBsonObjectSize", Value: int32(maxDocument)},
		{Key: "storageEngines", Value: bson.A{"lungo"}},
	}, nil
}

func runCreate(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	return bson.D{}, c.server.data.write(func(t *tx) error {
		if t.catalog.Namespaces[handle] != nil {
			return failf(codeNamespaceExists, "Collection %s already exists.", handle)
		}
		t.mutable(handle)
		t.dirty = true
		return nil
	})
}

// writable returns the namespace that the command is about, unless no
// collection of a user may have its name.
func (a *args) writable() (lungo.Handle, error) {
	handle, err := a.target()
	if err != nil {
		return handle, err
	}
	db, name := handle[0], handle[1]
	switch {
	case db == lungo.Local:
		return handle, failf(codeUnauthorized, "the database %q is read only in localmongo", db)
	case strings.ContainsAny(db, "/\\. \"$*<>:|?\x00") || len(db) > 63:
		return handle, failf(codeInvalidNamespace, "Invalid database name: %q", db)
	case strings.ContainsAny(name, "$\x00") || strings.HasPrefix(name, "system.") || strings.HasPrefix(name, ".") || len(name) > 255:
		return handle, failf(codeInvalidNamespace, "Invalid collection name: %q", name)
	}
	return handle, nil
}

func runDrop(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	err = c.server.data.write(func(t *tx) error {
		if t.catalog.Namespaces[handle] == nil {
			return failf(codeNamespaceNotFound, "ns not found")
		}
		t.drop(handle)
		return nil
	})
	return bson.D{{Key: "ns", Value: handle.String()}}, err
}

func runDropDatabase(c *session, a *args) (bson.D, error) {
	if a.db == lungo.Local {
		return nil, failf(codeUnauthorized, "the database %q is read only in localmongo", a.db)
	}
	err := c.server.data.write(func(t *tx) error {
		for _, handle := range slices.SortedFunc(maps.Keys(t.catalog.Namespaces), compareHandles) {
			if handle[0] == a.db {
				t.drop(handle)
			}
		}
		if t.dirty {
			t.emit("dropDatabase", lungo.Handle{a.db, ""}, nil, nil)
		}
		return nil
	})
	return bson.D{{Key: "dropped", Value: a.db}}, err
}

func compareHandles(x, y lungo.Handle) int { return slices.Compare(x[:], y[:]) }

func runListCollections(c *session, a *args) (bson.D, error) {
	filter, err := a.doc("filter")
	if err != nil {
		return nil, err
	}
	if err := checkFilter(filter); err != nil {
		return nil, err
	}
	list, err := lungo.NewTransaction(c.server.data.catalog.Load()).ListCollections(lungo.Handle{a.db, ""}, &filter)
	if err != nil {
		return nil, failf(codeBadValue, "%s", err)
	}
	bsonkit.Sort(list, []bsonkit.Column{{Path: "name"}}, true)
	return firstBatch(a.db+".$cmd.listCollections", list), nil
}

func runListDatabases(c *session, a *args) (bson.D, error) {
	filter, err := a.doc("filter")
	if err != nil {
		return nil, err
	}
	if err := checkFilter(filter); err != nil {
		return nil, err
	}
	list, err := lungo.NewTransaction(c.server.data.catalog.Load()).ListDatabases(&filter)
	if err != nil {
		return nil, failf(codeBadValue, "%s", err)
	}
	bsonkit.Sort(list, []bsonkit.Column{{Path: "name"}}, true)
	out := bson.A{}
	for _, d := range list {
		// The history of changes is not a database of the user's.
		if bsonkit.Get(d, "name") != lungo.Local {
			out = append(out, *d)
		}
	}
	return bson.D{{Key: "databases", Value: out}, {Key: "totalSize", Value: int64(0)}}, nil
}

// firstBatch is the answer of a command whose result always fits one batch.
func firstBatch(ns string, list bsonkit.List) bson.D {
	batch := make(bson.A, len(list))
	for i, d := range list {
		batch[i] = *d
	}
	return bson.D{{Key: "cursor", Value: bson.D{
		{Key: "firstBatch", Value: batch},
		{Key: "id", Value: int64(0)},
		{Key: "ns", Value: ns},
	}}}
}
