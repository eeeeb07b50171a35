"""This engine in a bench beside others: the same scripted delays behind each, the same
client in front.
"""
