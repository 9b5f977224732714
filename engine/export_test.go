package engine

import (
	"context"

	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/tokens/onetime"
)

// Upkeep is what the engine does for the app once a minute.
func (app *App) Upkeep(ctx context.Context) { app.upkeep(ctx) }

// ObserveKeys tells the app of a change of its keys.
func (app *App) ObserveKeys(epoch, version int64) {
	app.keys.observe(appstate.KeysVersion{Epoch: epoch, Version: version})
}

// KeysEpoch is the epoch of the keys that the app uses.
func (app *App) KeysEpoch() int64 { return app.keys.derive.Epoch() }

// HoldKeys keeps the app's keys as they are until the function is called.
func (app *App) HoldKeys() (release func()) {
	app.keys.mu.Lock()
	return app.keys.mu.Unlock
}

// OneTime is what works once in the app.
func (app *App) OneTime() *onetime.Store { return app.onetime }
