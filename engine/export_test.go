package engine

import "context"

// Upkeep is what the engine does for the app once a minute.
func (app *App) Upkeep(ctx context.Context) { app.upkeep(ctx) }
