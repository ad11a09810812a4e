"""An OpenAI-compatible endpoint with a mode per request. JSON and HTTP live here; what is computed is the engine's."""
