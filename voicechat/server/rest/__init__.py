"""The HTTP endpoints of the contract and their OpenAI aliases: one module for each
family.
"""
