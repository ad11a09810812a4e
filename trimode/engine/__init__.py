"""Requests of any mode share forwards: request, scheduler, runner, events, and the engine that turns the wheel."""
