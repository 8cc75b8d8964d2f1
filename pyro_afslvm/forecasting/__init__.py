"""Forecasts of many samples, and filtering of streams."""
